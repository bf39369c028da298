"""Bars: a panel per workload, a bar per implementation, its number and its error beside it."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from matplotlib.axes import Axes

from benchmarks.report.look import (
    AMBER,
    FAINT,
    INK,
    MARGIN,
    OURS,
    QUIET,
    WIDTH,
    WRONG,
    Place,
    Sheet,
    bar_style,
    text_style,
    text_width,
)
from benchmarks.report.results import BFLOAT16, FLOAT32, INT8, Outcome, Workload
from benchmarks.report.words import error_text, number

ROW, COLUMNS, GAP = 21, 3, 18
TYPES = (FLOAT32, BFLOAT16, INT8)
# Pixels above the panels, of a panel's own title, and of each further limit's label below it.
HEAD, TITLE, LABEL = 62, 60, 15


class Limit(NamedTuple):
    """A limit that the machine sets in float32; `of` gives its value for a workload, None where it is not known."""

    label: str
    of: Callable[[Workload], float | None]


class Quantity(NamedTuple):
    """The quantity that a bar's length shows.

    of: its value for an outcome with times, None where it was not measured. low_high: the ends of its spread.
    """

    of: Callable[[Workload, Outcome], float | None]
    low_high: Callable[[Workload, Outcome], tuple[float, float]] | None = None
    limits: tuple[Limit, ...] = ()
    best_is_least: bool = True

    @property
    def title(self) -> float:
        """Pixels above a panel's bars."""
        return TITLE + LABEL * max(0, len(self.limits) - 1)


class _Row(NamedTuple):
    """The row of one implementation, or the heading of those that compute in one type."""

    text: str
    heading: bool
    is_float32: bool


def bars(heading: str, below: str, workloads: Sequence[Workload], quantity: Quantity, notes: Sequence[str]) -> Sheet:
    """One sheet; implementations stand in the same order in every panel, float32 first, the fastest first."""
    rows = _rows(workloads, quantity)
    names = max(text_width(row.text, weight="bold") for row in rows) + 10
    columns = min(COLUMNS, len(workloads))
    width = (WIDTH - 2 * MARGIN - names - GAP * (columns - 1)) / columns
    title = quantity.title
    height = title + ROW * len(rows) + GAP
    lines = -(-len(workloads) // columns)
    sheet = Sheet(HEAD + lines * height + 15 * len(notes) + 12, heading, below)
    for line in range(lines):
        top = HEAD + line * height
        _names(sheet, rows, top + title, MARGIN + names - 10)
        for column, workload in enumerate(workloads[line * columns : (line + 1) * columns]):
            place = Place(MARGIN + names + column * (width + GAP), top, width, title + ROW * len(rows))
            _panel(sheet, place, workload, rows, quantity)
    sheet.footnotes(HEAD + lines * height, notes)
    return sheet


def _rows(workloads: Sequence[Workload], quantity: Quantity) -> list[_Row]:
    everyone = {outcome.name: outcome for workload in workloads for outcome in workload.outcomes if outcome.answered}
    ordered = sorted(
        everyone.values(),
        key=lambda outcome: (*_place_of_type(outcome.dtype), _rank(outcome.name, workloads, quantity)),
    )
    rows: list[_Row] = []
    types = list(dict.fromkeys(outcome.dtype for outcome in ordered))
    for dtype in types:
        if len(types) > 1 or dtype != FLOAT32:
            rows.append(_Row(dtype, True, dtype == FLOAT32))
        rows += [_Row(outcome.name, False, outcome.is_float32) for outcome in ordered if outcome.dtype == dtype]
    return rows


def _place_of_type(dtype: str) -> tuple[int, str]:
    """The wider type first, others last."""
    return (TYPES.index(dtype) if dtype in TYPES else len(TYPES), dtype)


def _rank(name: str, workloads: Sequence[Workload], quantity: Quantity) -> float:
    """The mean logarithm of its values over ours, where both were measured; infinite, hence last, if nowhere."""
    ratios = []
    for workload in workloads:
        outcome, ours = workload.outcome(name), workload.ours
        value = quantity.of(workload, outcome) if outcome and outcome.median else None
        if value and ours and (own := quantity.of(workload, ours)):
            ratios.append(math.log(value / own))
    return (fmean(ratios) if quantity.best_is_least else -fmean(ratios)) if ratios else math.inf


def _names(sheet: Sheet, rows: Sequence[_Row], top: float, right: float) -> None:
    for i, row in enumerate(rows):
        baseline = top + ROW * i + 14.5
        if row.heading:
            sheet.text(right, baseline, row.text, ha="right", size=11, color=QUIET, style="italic")
        elif row.text.startswith("hstl_fast"):
            sheet.text(right, baseline, row.text, ha="right", weight="bold", color=OURS)
        else:
            sheet.text(right, baseline, row.text, ha="right")


def _panel(sheet: Sheet, place: Place, workload: Workload, rows: Sequence[_Row], quantity: Quantity) -> None:
    errors = max((text_width(error_text(outcome), 11) for outcome in workload.timed), default=0) + 8
    ends = [
        _end(workload, outcome, quantity) for outcome in workload.timed if quantity.of(workload, outcome) is not None
    ]
    longest = max(ends, default=0) or 1
    room = place.width - errors - text_width("00000", weight="bold") - 6
    ax = sheet.axes(place._replace(top=place.top + quantity.title, height=place.height - quantity.title))
    ax.set(xlim=(0, longest / room * place.width), ylim=(len(rows), 0))
    ax.patch.set_visible(False)
    ax.set_axis_off()
    _title(sheet, place, workload, place.top + quantity.title - 4)
    for i, row in enumerate(rows):
        outcome = None if row.heading else workload.outcome(row.text)
        if outcome is not None:
            _bar(ax, i + 0.5, workload, outcome, quantity)
    ax.axvline(0, color=FAINT, linewidth=1)
    last = max((i for i, row in enumerate(rows) if row.is_float32), default=len(rows) - 1)
    for i, limit in enumerate(quantity.limits):
        value = limit.of(workload)
        if value is not None:
            _limit(sheet, ax, place, f"{limit.label} {number(value)}", value, TITLE - 4 + LABEL * i, last + 1)


def _title(sheet: Sheet, place: Place, workload: Workload, below: float) -> None:
    """The preset, what it is given, and the heading of the errors."""
    detail = workload.name.removeprefix(workload.preset).removeprefix(", ")
    detail = f"training, {detail}" if workload.training else detail
    size = min(12, 12 * place.width / text_width(detail)) if detail else 12
    sheet.text(place.left, place.top + 16, workload.preset, weight="bold", size=13)
    sheet.text(place.left, place.top + 32, detail, size=size, color=QUIET)
    errors = "errors: losses | gradients" if workload.training else "error"
    sheet.text(place.left + place.width, below, errors, ha="right", size=11, color=QUIET)


def _bar(ax: Axes, y: float, workload: Workload, outcome: Outcome, quantity: Quantity) -> None:
    value = quantity.of(workload, outcome) if outcome.median else None
    pixel = ax.get_xlim()[1] / (ax.get_position().width * WIDTH)
    if value is None:
        text = "wrong" if outcome.fault else "could not run" if outcome.unavailable else "not measured"
        ax.text(4 * pixel, y, text, va="center", **text_style(11, WRONG if outcome.fault else QUIET))
        return
    ax.barh(y, value, height=0.66, **bar_style(outcome))
    if quantity.low_high:
        ax.plot(quantity.low_high(workload, outcome), [y, y], color=INK, linewidth=1, solid_capstyle="butt")
    style = text_style(12, OURS, weight="bold") if outcome.ours else text_style(12)
    # On white, for the line of the limit may pass behind it.
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    ax.text(
        _end(workload, outcome, quantity) + 5 * pixel,
        y,
        number(value),
        va="center",
        bbox=behind,
        zorder=6,
        **style,
    )
    ax.text(
        ax.get_xlim()[1],
        y,
        error_text(outcome),
        va="center",
        ha="right",
        **text_style(11, QUIET if outcome.is_float32 else AMBER),
    )


def _end(workload: Workload, outcome: Outcome, quantity: Quantity) -> float:
    """The end of the bar, or of the line of its spread if that is longer."""
    high = quantity.low_high(workload, outcome)[1] if quantity.low_high else 0
    return max(quantity.of(workload, outcome) or 0, high)


def _limit(sheet: Sheet, ax: Axes, place: Place, text: str, value: float, height: float, rows: int) -> None:
    """A dashed line through the first rows, and its label `height` pixels below the panel's top."""
    x = value / ax.get_xlim()[1] * place.width
    ax.plot([value, value], (0, rows), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=5)
    half = text_width(text, 11) / 2
    centre = max(half, min(x, place.width - half - 60))
    sheet.text(place.left + centre, place.top + height, text, ha="center", size=11)
