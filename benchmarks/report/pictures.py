"""The pictures, what each needs, and how they become text."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.report.bars import Limit, Quantity, bars
from benchmarks.report.look import Sheet, our_style, wrapped
from benchmarks.report.results import Outcome, Results, Workload
from benchmarks.report.roofline import drawn, roofline
from benchmarks.report.scaling import scaling, series
from benchmarks.report.shares import divided, shares
from benchmarks.report.words import reasons, searches

DIRECT = "Dashed: the products of all maps, background included, by direct convolution,"
DIRECT_AND_WINOGRAD = (
    "Dashed: the products of all maps, background included, by direct convolution and by Winograd's F(4x4, 3x3) in "
    "space with the best of F(2, 3), F(4, 3) and F(5, 3) in time (its additions not counted),"
)
AROUND = "Medians, measured around the layers in Python."
NETWORKS = ("embedding", "throughput", "training step")
SILHOUETTES = (
    "People: silhouettes from footage of a street. Walkers: rendered ones, thinner, so that there is more background "
    "to leave out."
)


class Picture(NamedTuple):
    """A picture in a file `<name>.svg`; `lacks` says what the results would need for it, or None if they have it."""

    name: str
    title: str
    lacks: Callable[[Results], str | None]
    draw: Callable[[Results], Sheet]

    @property
    def file(self) -> str:
        return f"{self.name}.svg"


def svg(picture: Picture, results: Results) -> str:
    """The picture as the text of its file."""
    with our_style():
        return picture.draw(results).svg(picture.title, source(results))


def source(results: Results) -> str:
    """The words by which a file drawn from these results names its source."""
    return f"results.json sha256:{results.digest}"


def _group(group: str) -> Callable[[Results], str | None]:
    def lacks(results: Results) -> str | None:
        return None if any(w.timed for w in results.of(group)) else f"no timed workload of the group {group!r}"

    return lacks


def _batches(results: Results) -> str | None:
    batches = results.of("throughput")
    known = any(w.timed for w in batches) and all(w.frames for w in batches)
    return None if known else "no timed workload of the group 'throughput' with its frames counted"


def _milliseconds(workload: Workload, outcome: Outcome) -> float | None:
    return outcome.median * 1e3 if outcome.median else None


def _millisecond_quartiles(workload: Workload, outcome: Outcome) -> tuple[float, float]:
    assert outcome.low
    assert outcome.high
    return outcome.low * 1e3, outcome.high * 1e3


def _times(results: Results) -> Quantity:
    """Milliseconds, with the time that all operations of a direct and of a Winograd convolution take at the machine's
    float32 peak."""

    def winograd(workload: Workload) -> float | None:
        return workload.winograd_flop and workload.winograd_flop / results.peaks.float32 / 1e6

    def direct(workload: Workload) -> float:
        return (workload.direct_flop or workload.dense_flop) / results.peaks.float32 / 1e6

    limits = Limit("direct limit", direct), Limit("Winograd limit", winograd)
    return Quantity(_milliseconds, _millisecond_quartiles, limits)


def _frames_per_second(workload: Workload, outcome: Outcome) -> float | None:
    return workload.frames / outcome.median if workload.frames and outcome.median else None


def _frame_quartiles(workload: Workload, outcome: Outcome) -> tuple[float, float]:
    assert workload.frames
    assert outcome.low
    assert outcome.high
    return workload.frames / outcome.high, workload.frames / outcome.low


def _mebibytes(workload: Workload, outcome: Outcome) -> float | None:
    return outcome.peak_bytes / 2**20 if outcome.peak_bytes is not None else None


def _notes(results: Results, groups: Sequence[str], *explanations: str) -> list[str]:
    return wrapped([*explanations, *reasons(results.of(*groups)), f"{results.machine}; {results.commit}."])


def _time_notes(results: Results, group: str, dashed: str) -> list[str]:
    return _notes(
        results,
        [group],
        "Bars are medians, lines on them quartiles. Error: the largest difference from float64 over the largest value.",
        f"{dashed} at the float32 peak of this machine, {results.peaks.float32:.0f} GFLOP/s ({results.peaks.source}). "
        "hstl_fast leaves the background out.",
        SILHOUETTES,
        *searches(results.of(group)),
    )


def _latency(results: Results) -> Sheet:
    return bars(
        "Embedding one clip",
        "milliseconds, shorter is better; errors against float64 at the right",
        results.of("embedding"),
        _times(results),
        _time_notes(results, "embedding", DIRECT_AND_WINOGRAD),
    )


def _training(results: Results) -> Sheet:
    return bars(
        "A training step",
        "forward, both losses and backward: milliseconds, shorter is better",
        results.of("training step"),
        _times(results),
        _time_notes(results, "training step", DIRECT_AND_WINOGRAD),
    )


def _throughput(results: Results) -> Sheet:
    def direct(workload: Workload) -> float:
        flop = workload.direct_flop or workload.dense_flop
        return (workload.frames or 0) * results.peaks.float32 * 1e9 / flop

    return bars(
        "Embedding many clips at once",
        "frames per second, longer is better",
        results.of("throughput"),
        Quantity(
            _frames_per_second,
            _frame_quartiles,
            (Limit("direct limit", direct),),
            best_is_least=False,
        ),
        _time_notes(results, "throughput", DIRECT),
    )


def _measured_memory(results: Results) -> list[Workload]:
    return [w for w in results.of(*NETWORKS) if any(r.peak_bytes is not None for r in w.timed)]


def _memory(results: Results) -> Sheet:
    return bars(
        "Peak memory of one step",
        "MiB above the prepared network and its inputs, shorter is better",
        _measured_memory(results),
        Quantity(_mebibytes),
        _notes(results, NETWORKS),
    )


def _roofline(results: Results) -> Sheet:
    return roofline(
        results,
        _notes(
            results,
            [w.group for w in results.operators],
            f"Lines: the machine's own copy and peaks (float32: {results.peaks.source}). Dense operations are those "
            "of a direct convolution, the zeros of its padding included; Winograd needs a fraction of them, so that a "
            "point may stand above the roof. Strip pooling has no products to count and is left out. Networks: on "
            "people's silhouettes.",
        ),
    )


PICTURES = (
    Picture("latency", "Time to embed one clip", _group("embedding"), _latency),
    Picture("throughput", "Frames embedded per second", _batches, _throughput),
    Picture("training", "Time of a training step", _group("training step"), _training),
    Picture(
        "memory",
        "Peak memory of one step",
        lambda results: None if _measured_memory(results) else "no workload with its memory measured",
        _memory,
    ),
    Picture(
        "scaling",
        "Cost of a frame against frames, batch and threads",
        lambda results: None if series(results) else "no workload that is part of a series",
        lambda results: scaling(results, _notes(results, ["scaling"])),
    ),
    Picture(
        "operators",
        "Our time, divided among the layers",
        lambda results: None if divided(results) else "no workload with our time divided among the layers",
        lambda results: shares(results, _notes(results, [], AROUND, SILHOUETTES)),
    ),
    Picture(
        "roofline",
        "Roofline of the operators",
        lambda results: None if drawn(results) else "no operator timed with its traffic counted",
        _roofline,
    ),
)
