"""The goals of hstl_fast, and what the results say of them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.core.names import IN_CLIPS, ONE_THREAD
from benchmarks.report.results import SOURCES, Outcome, Results, Workload, fastest
from benchmarks.report.tables import NONE, Table

EAGER = "eager"
# The baselines that train in float32.
TORCH = (EAGER, "eager channels_last_3d", "torch.compile")


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


def goals(results: Results) -> Table:
    """Every goal that these results say something about; those reached are strong."""
    rows: list[tuple[str, ...]] = []
    strong: set[tuple[int, int]] = set()
    for goal in GOALS:
        ratio = goal.reached(results)
        if ratio is None:
            continue
        if goal.holds(ratio):
            strong.add((len(rows), 2))
        each = [goal.of(results, source) for source in SOURCES]
        rows.append((goal.what, _bound(goal), f"{ratio:.2f}", *map(_or_none, each)))
    return Table("Goals", NOTE, ("", "goal", "reached", *SOURCES), tuple(rows), frozenset(strong))


NOTE = (
    "Ratios of medians; of every baseline its fastest median in this run on clips of the same shape, of ours the worse "
    "of people's and walkers' silhouettes. Bold: reached."
)


def _bound(goal: Goal) -> str:
    return f"at most {goal.bound:g}" if goal.at_most else f"at least {goal.bound:g}"


def _or_none(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"


def _embedding(preset: str, counts: Callable[[Outcome], bool]) -> Callable[[Results, str], float | None]:
    """The fastest baseline that counts, over ours, on one clip."""

    def ratio(results: Results, source: str) -> float | None:
        return _faster(results, _find(results, "embedding", preset, source), counts)

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


def _is_float32(outcome: Outcome) -> bool:
    return outcome.is_float32


GOALS = (
    Goal("casia-b, one clip: the fastest other in float32 / ours", 5.5, _embedding("casia-b", _is_float32)),
    Goal(
        "casia-b, one clip: eager / ours",
        11,
        _embedding("casia-b", lambda outcome: outcome.name == EAGER),
    ),
    Goal("casia-b, one clip: the fastest in bfloat16 / ours", 2.6, _embedding("casia-b", lambda r: not r.is_float32)),
    Goal("oumvlp, one clip: the fastest other in float32 / ours", 3.8, _embedding("oumvlp", _is_float32)),
    Goal("gait3d, one clip: the fastest other in float32 / ours", 3.8, _embedding("gait3d", _is_float32)),
    Goal("casia-b, training step: the faster of eager and torch.compile / ours", 5.0, _training),
    Goal("casia-b, training step: our peak memory / eager's", 0.5, _memory, at_most=True),
    Goal("64 sequences of 15 to 120 frames: our frames/s / those in clips of 30", 0.95, _variation(IN_CLIPS)),
    Goal("casia-b, one clip: our time on one thread / on two", 1.85, _variation(ONE_THREAD)),
)
