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
# Those of a later run of the workloads that goals are set for.
GOALS_FILE = "goals.json"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
PRESETS = ("casia-b", "oumvlp", "grew", "gait3d")
SOURCES = (PEOPLE, WALKERS)
# Groups of whole networks, which cannot be without arithmetic, as an operator can.
NETWORKS = ("embedding", "throughput", "training step", "scaling", "variations")


class RankChanges(NamedTuple):
    """So many of the probes have another nearest sequence than in float64."""

    changed: int
    probes: int


class Outcome(NamedTuple):
    """The outcome of one implementation on one workload; None where something was not measured.

    Times are in seconds; `peak_bytes` is of one step. errors: (output) or, in training, (losses, gradients), relative
    to float64; empty where there is no answer. ranks: None where they were not counted. fault: why the answer does not
    count. unavailable: why it could not run.
    """

    name: str
    dtype: str
    errors: tuple[float, ...]
    ranks: RankChanges | None
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
    def is_float32(self) -> bool:
        """True for float32, the type of the released HSTL; the other types trade accuracy for time."""
        return self.dtype == FLOAT32

    @property
    def answered(self) -> bool:
        """True if it ran, rightly or wrongly."""
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
    """One row of the results; None where the file does not say.

    dense_flop: two for each of 27 taps of every position. direct_flop: the same without the taps outside a region or a
    sequence. winograd_flop: the same maps by Winograd. inside_flop: two for each of 27 taps of every position inside
    the support. executed_flop: those that our native code executes. silhouettes: people's or walkers'. frames: those
    of all `clips` sequences together.
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
    outcomes: tuple[Outcome, ...]

    @property
    def timed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.median)

    @property
    def ours(self) -> Outcome | None:
        """The fastest of our own."""
        return fastest(outcome for outcome in self.timed if outcome.ours)

    def outcome(self, name: str) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if outcome.name == name), None)

    def fastest_float32_baseline(self) -> Outcome | None:
        """The fastest baseline that computes in float32."""
        return fastest(outcome for outcome in self.timed if outcome.is_float32 and not outcome.ours)


class Peaks(NamedTuple):
    """The machine's own peaks, measured in the same run: arithmetic in GFLOP/s, a copy in GB/s.

    Arithmetic is the larger of multiply-adds from registers and of the best product of any library in the run.
    source: which of them the float32 peak is, in words.
    """

    float32: float
    copy: float
    bfloat16: float | None
    source: str


class Results(NamedTuple):
    """A whole run. `digest` names its content, `machine` and `commit` say in words where it comes from.

    folder: the name of the folder of the results. cores: the generation of the processor's cores, such as "Zen 4"; None
    where the file does not say.
    """

    folder: str
    workloads: tuple[Workload, ...]
    peaks: Peaks
    cores: str | None
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
    def implementation_names(self) -> list[str]:
        """Every implementation of the file: our own first, then the baselines in the order of measuring."""
        names = dict.fromkeys(outcome.name for workload in self.workloads for outcome in workload.outcomes)
        return sorted(names, key=lambda name: not name.startswith("hstl_fast"))

    def dtype(self, name: str) -> str:
        return next(r.dtype for workload in self.workloads for r in workload.outcomes if r.name == name)


def labels(runs: Sequence[Results]) -> list[str]:
    """A short name for each of several runs: its cores, or its folder where that does not tell them apart."""
    cores = [run.cores for run in runs]
    return [run.cores if run.cores and cores.count(run.cores) == 1 else run.folder for run in runs]


def fastest(outcomes: Iterable[Outcome]) -> Outcome | None:
    return min(
        (outcome for outcome in outcomes if outcome.median),
        key=lambda outcome: outcome.median or 0,
        default=None,
    )


def _place(names: Sequence[str], name: str | None) -> int:
    return names.index(name) if name in names else len(names)


def load(folder: Path, file: str = FILE) -> Results:
    """The results of `folder`.

    Raises:
        ValueError: The file is not what it should be; one sentence names the workload and the field.
    """
    path = folder / file
    if not path.is_file():
        raise ValueError(f"{folder}: expected a folder with a {file} in it, got none there")
    try:
        return _results(json.loads(path.read_text(encoding="utf-8")), folder.resolve().name)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected what `pytest benchmarks --benchmark-only --benchmark-json` writes, got a file with a "
            f"fault: {error}"
        ) from error


def load_goals(folder: Path) -> Results | None:
    """The results of a later run of the workloads that goals are set for; None where there are none in `folder`.

    Raises:
        ValueError: The file is not what it should be.
    """
    return load(folder, GOALS_FILE) if (folder / GOALS_FILE).exists() else None


def _results(data: object, folder: str) -> Results:
    fields = Fields("the file", data)
    benchmarks, peaks = fields.get("benchmarks", LIST), fields.inner("peaks")
    if not benchmarks:
        raise ValueError("the file: benchmarks must be a list of workloads, got an empty one")
    machine = fields.inner("machine_info").inner("hstl_fast")
    return Results(
        folder=folder,
        workloads=tuple(_workload(Fields(f"benchmark {i}", benchmark)) for i, benchmark in enumerate(benchmarks)),
        peaks=_peaks(peaks),
        cores=_processor(machine).maybe("microarchitecture", NAME),
        machine=_machine(machine),
        commit=_commit(fields.inner("commit_info"), fields.get("datetime", NAME)),
        digest=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
    )


def _peaks(peaks: Fields) -> Peaks:
    rates = {dtype: _rates(peaks, dtype) for dtype in (FLOAT32, BFLOAT16)}
    float32, bfloat16 = (max(filter(None, rates[dtype]), default=None) for dtype in (FLOAT32, BFLOAT16))
    if float32 is None:
        raise ValueError(f"{peaks.where}: expected a float32 rate of multiply-adds or of a library, got neither")
    return Peaks(float32, peaks.get("copy_gbyte_per_second", POSITIVE), bfloat16, _source(peaks, *rates[FLOAT32]))


def _rates(peaks: Fields, dtype: str) -> tuple[float | None, float | None]:
    """GFLOP/s of multiply-adds from registers, and of the best product of any library."""
    own, library = (peaks.maybe(f"{dtype}_{kind}_gflop_per_second", POSITIVE) for kind in ("multiply_adds", "library"))
    return own, library


def _source(peaks: Fields, own: float | None, library: float | None) -> str:
    if own and own >= (library or 0):
        return "multiply-adds from registers"
    words = f"the best product of a library: {peaks.maybe(f'{FLOAT32}_library', NAME) or 'unnamed'}"
    missing = peaks.maybe("multiply_adds_missing", NAME) or "not measured"
    return words if own else f"{words}; multiply-adds from registers: {missing}"


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
        outcomes=tuple(_outcome(info, name) for name in info.inner("implementations").content),
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


def _outcome(workload: Fields, name: str) -> Outcome:
    info = workload.inner("implementations").inner(name)
    timed = info.content.get("median") is not None
    return Outcome(
        name=name,
        dtype=info.maybe("dtype", NAME) or (BFLOAT16 if "bf16" in name else FLOAT32),
        errors=_errors(info, timed),
        ranks=_ranks(info),
        fault=info.maybe("fault", TEXT),
        unavailable=info.maybe("unavailable", TEXT),
        median=info.maybe("median", POSITIVE),
        low=info.get("low", POSITIVE) if timed else None,
        high=info.get("high", POSITIVE) if timed else None,
        rounds=info.get("rounds", COUNT) if timed else None,
        peak_bytes=info.maybe("peak_bytes", COUNT_OR_ZERO),
    )


def _errors(outcome: Fields, timed: bool) -> tuple[float, ...]:
    """Every outcome with times has errors; those of a wrong answer may be infinite or NaN."""
    if not timed and outcome.content.get("errors") is None:
        return ()
    errors, kind = outcome.inner("errors"), ERROR if timed else ANY_ERROR
    output = errors.get("output", kind) if timed else errors.maybe("output", kind)
    return tuple(error for error in (output, errors.maybe("gradient", kind)) if error is not None)


def _ranks(outcome: Fields) -> RankChanges | None:
    if outcome.content.get("rank_changes") is None:
        return None
    found = outcome.inner("rank_changes")
    return RankChanges(found.get("changed", COUNT_OR_ZERO), found.get("probes", COUNT))


def _processor(info: Fields) -> Fields:
    """The processor by its numbers; without fields in older files."""
    return info.inner("processor") if info.content.get("processor") is not None else Fields(info.where, {})


def _numbers(processor: Fields) -> str:
    """ " (Zen 5, family 26, model 2, stepping 1)", or nothing."""
    cores = processor.maybe("microarchitecture", NAME)
    numbers = {name: processor.maybe(name, COUNT_OR_ZERO) for name in ("family", "model", "stepping")}
    words = [cores, *(None if number is None else f"{name} {number}" for name, number in numbers.items())]
    known = ", ".join(word for word in words if word)
    return f" ({known})" if known else ""


def _machine(info: Fields) -> str:
    native = info.inner("native_cpu")
    isa = f", {native.get('instruction_set', NAME)}" if native.maybe("loaded", FLAG) else ""
    cores, threads = info.maybe("cores", COUNT), info.get("threads", COUNT)
    name = info.get("cpu", NAME) + _numbers(_processor(info))
    return f"{name}, {cores} cores{isa}, {threads} threads, PyTorch {info.get('torch', NAME)}"


def _commit(info: Fields, measured: str) -> str:
    changed = ", with changes" if info.maybe("dirty", FLAG) else ""
    time = info.maybe("time", NAME)
    made = f" of {time[:10]}" if time else ""
    return f"commit {info.get('id', NAME)[:10]}{made}{changed}, measured {measured[:10]}"
