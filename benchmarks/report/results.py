"""`results.json`, as `pytest benchmarks --benchmark-only --benchmark-json` writes it, read and checked."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = "results.json"
FLOAT32 = "float32"
PRESETS = ("casia-b", "oumvlp", "grew", "gait3d")


class Rival(NamedTuple):
    """What became of one rival on one workload. Times in seconds, `peak_bytes` of one step; None where not measured.

    errors: (output) or, in training, (losses, gradients), relative to float64; empty if it gave no answer.
    fault: why its answer does not count. unavailable: why it could not be asked.
    """

    name: str
    dtype: str
    errors: tuple[float, ...]
    fault: str | None
    unavailable: str | None
    median: float | None
    low: float | None
    high: float | None
    rounds: int | None
    peak_bytes: int | None

    @property
    def ours(self) -> bool:
        return self.name.startswith("hstl_fast")

    @property
    def wide(self) -> bool:
        """Whether it computes in float32, as HSTL is defined; others buy time with accuracy."""
        return self.dtype == FLOAT32

    @property
    def answered(self) -> bool:
        """Whether it ran, be it wrongly."""
        return bool(self.median or self.fault)


class Scaling(NamedTuple):
    """The place of a workload in a series: `axis` is "frames", "batch" or "threads"."""

    axis: str
    value: int


class Workload(NamedTuple):
    """One row of the results. `frames` in total, of `clips` sequences; None where the file does not say."""

    name: str
    group: str
    preset: str
    training: bool
    dense_flop: int
    executed_flop: int | None
    least_bytes: int | None
    clips: int | None
    frames: int | None
    threads: int | None
    scaling: Scaling | None
    rivals: tuple[Rival, ...]

    @property
    def timed(self) -> tuple[Rival, ...]:
        return tuple(rival for rival in self.rivals if rival.median)

    @property
    def ours(self) -> Rival | None:
        """Our fastest."""
        return fastest(rival for rival in self.timed if rival.ours)

    @property
    def direct_flop(self) -> int:
        """What a direct convolution cannot do without."""
        return self.executed_flop or self.dense_flop

    def rival(self, name: str) -> Rival | None:
        return next((rival for rival in self.rivals if rival.name == name), None)

    def best_wide_rival(self) -> Rival | None:
        """The fastest of the others that compute in float32."""
        return fastest(rival for rival in self.timed if rival.wide and not rival.ours)


class Peaks(NamedTuple):
    """The machine's own best, measured in the same run: products in GFLOP/s, copy in GB/s."""

    float32: float
    copy: float
    bfloat16: float | None


class Results(NamedTuple):
    """A whole run. `digest` names its content, `machine` and `commit` say in words where it comes from."""

    workloads: tuple[Workload, ...]
    peaks: Peaks
    machine: str
    commit: str
    digest: str

    def of(self, *groups: str) -> list[Workload]:
        """The workloads of these groups, group by group, the presets in the paper's order."""
        found = [workload for workload in self.workloads if workload.group in groups]
        return sorted(found, key=lambda workload: (groups.index(workload.group), _place(PRESETS, workload.preset)))

    @property
    def operators(self) -> list[Workload]:
        return [workload for workload in self.workloads if workload.group.endswith((" forward", " and backward"))]

    @property
    def rival_names(self) -> list[str]:
        """Every rival of the file: ours first, then the others in the order of their turns."""
        names = dict.fromkeys(rival.name for workload in self.workloads for rival in workload.rivals)
        return sorted(names, key=lambda name: not name.startswith("hstl_fast"))

    def dtype(self, name: str) -> str:
        return next(r.dtype for workload in self.workloads for r in workload.rivals if r.name == name)


def fastest(rivals: Iterable[Rival]) -> Rival | None:
    return min((rival for rival in rivals if rival.median), key=lambda rival: rival.median or 0, default=None)


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def load(folder: Path) -> Results:
    """The results of `folder`; ValueError with one sentence for a file that is not what it should be."""
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{folder}: expected a folder with a {FILE} in it, got none there")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return _results(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path}: expected what `pytest benchmarks --benchmark-only --benchmark-json` writes, got {reason}"
        ) from error


def _results(data: Mapping[str, Any]) -> Results:
    peaks = data["peaks"]
    return Results(
        workloads=tuple(_workload(benchmark["extra_info"]) for benchmark in data["benchmarks"]),
        peaks=Peaks(
            float(peaks["float32_gflop_per_second"]),
            float(peaks["copy_gbyte_per_second"]),
            peaks.get("bfloat16_gflop_per_second"),
        ),
        machine=_machine(data["machine_info"]["hstl_fast"]),
        commit=_commit(data["commit_info"], data["datetime"]),
        digest=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
    )


def _workload(info: Mapping[str, Any]) -> Workload:
    scaling = info.get("scaling")
    return Workload(
        name=info["workload"],
        group=info["group"],
        preset=info["preset"],
        training=info["training"],
        dense_flop=info["dense_flop"],
        executed_flop=info.get("executed_flop"),
        least_bytes=info["least_bytes"],
        clips=info.get("clips"),
        frames=info.get("frames"),
        threads=info.get("threads"),
        scaling=scaling and Scaling(scaling["axis"], scaling["value"]),
        rivals=tuple(_rival(name, rival) for name, rival in info["rivals"].items()),
    )


def _rival(name: str, info: Mapping[str, Any]) -> Rival:
    errors = info["errors"] or {}
    return Rival(
        name=name,
        dtype=info.get("dtype") or ("bfloat16" if "bf16" in name else FLOAT32),
        errors=tuple(error for error in (errors.get("output"), errors.get("gradient")) if error is not None),
        fault=info["fault"],
        unavailable=info["unavailable"],
        median=info.get("median"),
        low=info.get("low"),
        high=info.get("high"),
        rounds=info.get("rounds"),
        peak_bytes=info.get("peak_bytes"),
    )


def _machine(info: Mapping[str, Any]) -> str:
    native = info["native_cpu"]
    isa = f", {native['instruction_set']}" if native.get("loaded") else ""
    return f"{info['cpu']}, {info['cores']} cores{isa}, {info['threads']} threads, PyTorch {info['torch']}"


def _commit(info: Mapping[str, Any], measured: str) -> str:
    changed = ", with changes" if info.get("dirty") else ""
    made = f" of {info['time'][:10]}" if info.get("time") else ""
    return f"commit {str(info['id'])[:10]}{made}{changed}, measured {measured[:10]}"
