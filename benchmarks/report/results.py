"""`results.json`, as `pytest benchmarks --benchmark-only --benchmark-json` writes it, read and checked."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.core.names import PEOPLE, WALKERS
from benchmarks.report.fields import (
    ANY_ERROR,
    COUNT,
    COUNT_OR_ZERO,
    ERROR,
    FLAG,
    LIST,
    NAME,
    POSITIVE,
    TEXT,
    Fields,
)

FILE = "results.json"
FLOAT32 = "float32"
PRESETS = ("casia-b", "oumvlp", "grew", "gait3d")
SOURCES = (PEOPLE, WALKERS)
NETWORKS = ("embedding", "throughput", "training step", "scaling", "variations")
"""Groups of whole networks, which cannot be without arithmetic, as an operator can."""


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


class Part(NamedTuple):
    """Our time in one kind of layer, in seconds, and the operations executed there; None where there are none."""

    name: str
    seconds: float
    executed_flop: int | None


class Division(NamedTuple):
    """Our time of one step, in seconds, and its parts: medians of so many rounds."""

    total: float
    rounds: int
    parts: tuple[Part, ...]


class Workload(NamedTuple):
    """One row of the results. None where the file does not say.

    dense_flop: two for each of 27 taps of every position. direct_flop: of them, those inside regions and sequences.
    winograd_flop: the same maps by Winograd. inside_flop: 27 taps of every position inside the support. executed_flop:
    what our native code executes. silhouettes: whose, people's or walkers'. frames: in total, of `clips` sequences.
    """

    name: str
    group: str
    preset: str
    training: bool
    silhouettes: str | None
    dense_flop: int
    direct_flop: int | None
    winograd_flop: int | None
    inside_flop: int | None
    executed_flop: int | None
    least_bytes: int | None
    clips: int | None
    frames: int | None
    threads: int | None
    scaling: Scaling | None
    division: Division | None
    rivals: tuple[Rival, ...]

    @property
    def timed(self) -> tuple[Rival, ...]:
        return tuple(rival for rival in self.rivals if rival.median)

    @property
    def ours(self) -> Rival | None:
        """Our fastest."""
        return fastest(rival for rival in self.timed if rival.ours)

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
        """The workloads of these groups, group by group, people's silhouettes first, presets in the paper's order."""
        found = [workload for workload in self.workloads if workload.group in groups]
        return sorted(
            found, key=lambda w: (groups.index(w.group), _place(SOURCES, w.silhouettes), _place(PRESETS, w.preset))
        )

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


def _place(names: Sequence[str], name: str | None) -> int:
    return names.index(name) if name in names else len(names)


def load(folder: Path) -> Results:
    """The results of `folder`; ValueError with one sentence for a file that is not what it should be, naming the
    workload and the field."""
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{folder}: expected a folder with a {FILE} in it, got none there")
    try:
        return _results(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected what `pytest benchmarks --benchmark-only --benchmark-json` writes, got a file with a "
            f"fault: {error}"
        ) from error


def _results(data: object) -> Results:
    fields = Fields("the file", data)
    benchmarks, peaks = fields.get("benchmarks", LIST), fields.inner("peaks")
    if not benchmarks:
        raise ValueError("the file: benchmarks must be a list of workloads, got an empty one")
    return Results(
        workloads=tuple(_workload(Fields(f"benchmark {i}", benchmark)) for i, benchmark in enumerate(benchmarks)),
        peaks=Peaks(
            peaks.get("float32_gflop_per_second", POSITIVE),
            peaks.get("copy_gbyte_per_second", POSITIVE),
            peaks.maybe("bfloat16_gflop_per_second", POSITIVE),
        ),
        machine=_machine(fields.inner("machine_info").inner("hstl_fast")),
        commit=_commit(fields.inner("commit_info"), fields.get("datetime", NAME)),
        digest=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
    )


def _workload(benchmark: Fields) -> Workload:
    given = benchmark.inner("extra_info")
    group, name = given.get("group", NAME), given.get("workload", NAME)
    info = Fields(f"{group} of {name}", given.content)
    counted = COUNT if group in NETWORKS else COUNT_OR_ZERO
    return Workload(
        name=name,
        group=group,
        preset=info.get("preset", NAME),
        training=info.get("training", FLAG),
        silhouettes=info.maybe("silhouettes", NAME),
        dense_flop=info.get("dense_flop", counted),
        direct_flop=info.maybe("direct_flop", counted),
        winograd_flop=info.maybe("winograd_flop", counted),
        inside_flop=info.maybe("inside_flop", COUNT_OR_ZERO),
        executed_flop=info.maybe("executed_flop", COUNT_OR_ZERO),
        least_bytes=info.maybe("least_bytes", COUNT_OR_ZERO),
        clips=info.maybe("clips", COUNT),
        frames=info.maybe("frames", COUNT),
        threads=info.maybe("threads", COUNT),
        scaling=_scaling(info),
        division=_division(info),
        rivals=tuple(_rival(info, name) for name in info.inner("rivals").content),
    )


def _scaling(workload: Fields) -> Scaling | None:
    if workload.content.get("scaling") is None:
        return None
    place = workload.inner("scaling")
    return Scaling(place.get("axis", NAME), place.get("value", COUNT))


def _division(workload: Fields) -> Division | None:
    if workload.content.get("division") is None:
        return None
    division = workload.inner("division")
    parts = [Fields(f"{division.where}: part {i}", part) for i, part in enumerate(division.get("parts", LIST))]
    if not parts:
        raise ValueError(f"{division.where}: parts must be a list of parts, got an empty one")
    return Division(
        total=division.get("total", POSITIVE),
        rounds=division.get("rounds", COUNT),
        parts=tuple(
            Part(p.get("name", NAME), p.get("seconds", ERROR), p.maybe("executed_flop", COUNT_OR_ZERO)) for p in parts
        ),
    )


def _rival(workload: Fields, name: str) -> Rival:
    info = workload.inner("rivals").inner(name)
    timed = info.content.get("median") is not None
    return Rival(
        name=name,
        dtype=info.maybe("dtype", NAME) or ("bfloat16" if "bf16" in name else FLOAT32),
        errors=_errors(info, timed),
        fault=info.maybe("fault", TEXT),
        unavailable=info.maybe("unavailable", TEXT),
        median=info.maybe("median", POSITIVE),
        low=info.get("low", POSITIVE) if timed else None,
        high=info.get("high", POSITIVE) if timed else None,
        rounds=info.get("rounds", COUNT) if timed else None,
        peak_bytes=info.maybe("peak_bytes", COUNT_OR_ZERO),
    )


def _errors(rival: Fields, timed: bool) -> tuple[float, ...]:
    """Whoever was timed has been judged; the error of one who was wrong may be infinite, or no number."""
    if not timed and rival.content.get("errors") is None:
        return ()
    errors, kind = rival.inner("errors"), ERROR if timed else ANY_ERROR
    output = errors.get("output", kind) if timed else errors.maybe("output", kind)
    return tuple(error for error in (output, errors.maybe("gradient", kind)) if error is not None)


def _machine(info: Fields) -> str:
    native = info.inner("native_cpu")
    isa = f", {native.get('instruction_set', NAME)}" if native.maybe("loaded", FLAG) else ""
    cores, threads = info.maybe("cores", COUNT), info.get("threads", COUNT)
    return f"{info.get('cpu', NAME)}, {cores} cores{isa}, {threads} threads, PyTorch {info.get('torch', NAME)}"


def _commit(info: Fields, measured: str) -> str:
    changed = ", with changes" if info.maybe("dirty", FLAG) else ""
    time = info.maybe("time", NAME)
    made = f" of {time[:10]}" if time else ""
    return f"commit {info.get('id', NAME)[:10]}{made}{changed}, measured {measured[:10]}"
