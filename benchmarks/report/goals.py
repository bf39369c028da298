"""The goals of hstl_fast, and what the results say of them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.core.names import IN_CLIPS, ONE_THREAD, PEOPLE
from benchmarks.report.results import (
    BFLOAT16,
    FLOAT32,
    INT8,
    SOURCES,
    Outcome,
    Results,
    Workload,
    fastest,
    labels,
)
from benchmarks.report.tables import NONE, Table
from benchmarks.report.words import reasons

EAGER, COMPILED = "eager", "torch.compile"
# The baselines that train in float32.
TORCH = (EAGER, "eager channels_last_3d", COMPILED)


class Goal(NamedTuple):
    """A ratio that ours should reach: `bound`, at least, or at most where `at_most`.

    of: the ratio on people's or on walkers' silhouettes, None where it was not measured.
    """

    what: str
    bound: float
    of: Callable[[Results, str], float | None]
    at_most: bool = False

    def reached(self, results: Results) -> float | None:
        """The ratio that counts: the worse of people's and walkers'."""
        ratios = [ratio for source in SOURCES if (ratio := self.of(results, source)) is not None]
        if not ratios:
            return None
        return max(ratios) if self.at_most else min(ratios)

    def holds(self, ratio: float) -> bool:
        return ratio <= self.bound if self.at_most else ratio >= self.bound


def goals(*runs: Results) -> Table:
    """Every goal that these results say something about; those reached are strong.

    Of several processors, each has columns of its own.
    """
    headers = ("", "goal", *(header for label in labels(runs) for header in _headers(label if len(runs) > 1 else "")))
    rows: list[tuple[str, ...]] = []
    strong: set[tuple[int, int]] = set()
    for goal in GOALS:
        ratios = [goal.reached(run) for run in runs]
        if all(ratio is None for ratio in ratios):
            continue
        cells = [goal.what, _bound(goal)]
        for run, ratio in zip(runs, ratios, strict=True):
            if ratio is not None and goal.holds(ratio):
                strong.add((len(rows), len(cells)))
            cells += [_or_none(ratio), *(_or_none(goal.of(run, source)) for source in SOURCES)]
        rows.append(tuple(cells))
    return Table("Goals", NOTE, headers, tuple(rows), frozenset(strong))


def summary(results: Results) -> list[str]:
    """Lines that say of every goal whether these results reach it, and what was compared; none where none was asked
    for."""
    ratios = {goal: goal.reached(results) for goal in GOALS}
    known = {goal: ratio for goal, ratio in ratios.items() if ratio is not None}
    if not known:
        return []
    reached = sum(goal.holds(ratio) for goal, ratio in known.items())
    lines = [f"{reached} of {len(known)} goals reached (ratios; the worse of people's and walkers' silhouettes):"]
    for goal, ratio in known.items():
        word = "reached" if goal.holds(ratio) else "missed"
        lines.append(f"  {word:8} {ratio:5.2f}  {_bound(goal):13}  {goal.what}")
    lines += [f"  not measured: {goal.what}" for goal in GOALS if goal not in known]
    others = [name for name in results.implementation_names if not name.startswith(OURS_ANYHOW)]
    timed = {outcome.name for workload in results.workloads for outcome in workload.timed}
    lines.append(f"Compared with {', '.join(name for name in others if name in timed) or 'nothing'}.")
    return [*lines, *(f"Without a time: {reason}" for reason in reasons(results.workloads))]


# How the names of ours begin: those of the package, and of ours with other inputs or threads.
OURS_ANYHOW = ("hstl_fast", "the same")

NOTE = (
    "Ratios of medians; of every baseline its fastest median in this run on clips of the same shape, of ours the worse "
    "of people's and walkers' silhouettes. Bold: reached."
)


def _headers(label: str) -> tuple[str, ...]:
    headers = ("reached", *SOURCES)
    return tuple(f"{label}: {header}" for header in headers) if label else headers


def _bound(goal: Goal) -> str:
    return f"at most {goal.bound:g}" if goal.at_most else f"at least {goal.bound:g}"


def _or_none(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"


def _embedding(preset: str, dtype: str) -> Callable[[Results, str], float | None]:
    """The fastest baseline in this type, over ours, on one clip."""

    def ratio(results: Results, source: str) -> float | None:
        workload = _find(results, "embedding", preset, source)
        return _faster(results, workload, lambda outcome: outcome.dtype == dtype)

    return ratio


def _training(results: Results, source: str) -> float | None:
    return _faster(results, _find(results, "training step", "casia-b", source), lambda outcome: outcome.name in TORCH)


def _memory(results: Results, source: str) -> float | None:
    workload = _find(results, "training step", "casia-b", source)
    ours, eager = (workload.ours, workload.outcome(EAGER)) if workload else (None, None)
    if not ours or not eager or ours.peak_bytes is None or not eager.peak_bytes:
        return None
    return ours.peak_bytes / eager.peak_bytes


def _variation(name: str) -> Callable[[Results, str], float | None]:
    """The time of this variation of ours over that of ours."""

    def ratio(results: Results, source: str) -> float | None:
        for workload in results.of("variations"):
            ours, other = workload.ours, workload.outcome(name)
            if workload.silhouettes == source and ours and ours.median and other and other.median:
                return other.median / ours.median
        return None

    return ratio


def _find(results: Results, group: str, preset: str, source: str) -> Workload | None:
    found = [w for w in results.of(group) if w.preset == preset and w.silhouettes == source]
    return found[0] if found else None


def _faster(results: Results, workload: Workload | None, counts: Callable[[Outcome], bool]) -> float | None:
    """The fastest median of these baselines in the run, on any silhouettes, over ours on this workload."""
    if workload is None or not workload.ours or not workload.ours.median:
        return None
    other = fastest(
        outcome for w in _alike(results, workload) for outcome in w.outcomes if not outcome.ours and counts(outcome)
    )
    return other.median / workload.ours.median if other and other.median else None


def _alike(results: Results, workload: Workload) -> Iterable[Workload]:
    """All workloads of the same network on as many clips and frames with as many threads."""
    shape = _shape(workload)
    return [w for w in results.workloads if w.group != "variations" and _shape(w) == shape]


def _shape(workload: Workload) -> tuple[object, ...]:
    return workload.preset, workload.training, workload.clips, workload.frames, workload.threads, workload.dense_flop


def _strips(results: Results, source: str) -> float | None:
    """torch.compile over ours on the maps that people's silhouettes give the strip pool."""
    for workload in results.of("strip_pool forward"):
        ours, compiled = workload.ours, workload.outcome(COMPILED)
        if source == PEOPLE and workload.name.startswith("strip_pool 128-128") and ours and compiled:
            return compiled.median / ours.median if compiled.median and ours.median else None
    return None


GOALS = (
    Goal("casia-b, one clip: the fastest other in float32 / ours", 7, _embedding("casia-b", FLOAT32)),
    Goal("oumvlp, one clip: the fastest other in float32 / ours", 5, _embedding("oumvlp", FLOAT32)),
    Goal("gait3d, one clip: the fastest other in float32 / ours", 5, _embedding("gait3d", FLOAT32)),
    Goal("casia-b, one clip: the fastest in bfloat16 / ours", 3.5, _embedding("casia-b", BFLOAT16)),
    Goal("casia-b, one clip: the fastest in int8 / ours", 3, _embedding("casia-b", INT8)),
    Goal("casia-b, training step: the faster of eager and torch.compile / ours", 7, _training),
    Goal("casia-b, training step: our peak memory / eager's", 0.4, _memory, at_most=True),
    Goal("casia-b, one clip: our time on one thread / on two", 1.9, _variation(ONE_THREAD)),
    Goal("strip pool of 128 channels: torch.compile / ours", 1.3, _strips),
    Goal("64 sequences of 15 to 120 frames: our frames/s / those in clips of 30", 0.95, _variation(IN_CLIPS)),
)
