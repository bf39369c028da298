"""Our time of one step, divided among the layers: a panel per workload, a bar per part."""

from collections.abc import Sequence

from benchmarks.report.look import FAINT, MARGIN, OURS, QUIET, WIDTH, Place, Sheet, text_style, text_width
from benchmarks.report.results import Division, Results, Workload
from benchmarks.report.words import number

TOP, TITLE, ROW, GAP = 62, 44, 21, 30
COLUMNS = 2
# Pixels for the numbers at a bar's end.
ROOM = 96


def shares(results: Results, notes: Sequence[str]) -> Sheet:
    """The parts in the order of computation; every panel has its own scale."""
    workloads = divided(results)
    columns = min(COLUMNS, len(workloads))
    width = (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns
    height = TITLE + ROW * max(len(w.division.parts) for w in workloads if w.division) + GAP
    lines = -(-len(workloads) // columns)
    sheet = Sheet(
        TOP + lines * height + 15 * len(notes) + 12,
        "Where hstl_fast's time goes",
        "milliseconds of embedding one clip, and their share; convolutions by their channels",
    )
    for i, workload in enumerate(workloads):
        left, top = MARGIN + i % columns * (width + GAP), TOP + i // columns * height
        _panel(sheet, Place(left, top, width, height - GAP), workload)
    sheet.footnotes(TOP + lines * height, notes)
    return sheet


def divided(results: Results) -> list[Workload]:
    """The workloads whose time is divided, of whatever group."""
    return [w for w in results.of(*dict.fromkeys(w.group for w in results.workloads)) if w.division]


def _panel(sheet: Sheet, place: Place, workload: Workload) -> None:
    division = workload.division
    assert division
    names = max(text_width(part.name) for part in division.parts) + 10
    width = place.width - names
    sheet.text(place.left, place.top + 16, workload.name, weight="bold", size=13)
    sheet.text(place.left, place.top + 33, f"{number(division.total * 1e3)} ms", color=QUIET)
    for i, part in enumerate(division.parts):
        sheet.text(place.left + names - 8, place.top + TITLE + ROW * i + 14.5, part.name, ha="right")
    ax = sheet.axes(Place(place.left + names, place.top + TITLE, width, ROW * len(division.parts)))
    longest = max(part.seconds for part in division.parts) or division.total
    ax.set(xlim=(0, longest / (width - ROOM) * width), ylim=(len(division.parts), 0))
    ax.set_axis_off()
    for i, part in enumerate(division.parts):
        ax.barh(i + 0.5, part.seconds, height=0.66, color=OURS)
        end = part.seconds + 5 * ax.get_xlim()[1] / width
        ax.text(end, i + 0.5, in_words(division, part.seconds), va="center", **text_style(12))
    ax.axvline(0, color=FAINT, linewidth=1)


def in_words(division: Division, seconds: float) -> str:
    """ "12.3 (27%)": milliseconds and share."""
    return f"{number(seconds * 1e3)} ({seconds / division.total:.0%})"
