"""The cost of a frame as clips, batches and threads grow."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.report.look import FAINT, MARGIN, OURS, QUIET, WIDTH, Place, Sheet, spread, text_style, text_width
from benchmarks.report.results import Results, Workload

TOP, PLOT, GAP, LEFT = 96, 240, 34, 34
COLUMNS = 3
AXES = {"frames": "frames of one clip", "batch": "clips of a batch", "threads": "threads"}
# Colours by an implementation's name or its first word; those in narrower types than float32 are dashed.
COLORS = {
    "eager": "#6e7781",
    "eager channels_last_3d": "#a7b0ba",
    "torch.compile": "#d55e00",
    "onnxruntime": "#009e73",
    "openvino": "#aa4499",
}


class Line(NamedTuple):
    """The cost of one implementation in milliseconds per frame at each value of an axis."""

    name: str
    is_float32: bool
    values: tuple[int, ...]
    costs: tuple[float, ...]


def scaling(results: Results, notes: Sequence[str]) -> Sheet:
    """A panel per axis and preset, all with the same scale of costs; lines are labelled at their ends."""
    panels = {key: lines(workloads) for key, workloads in series(results).items()}
    labels = max(text_width(line.name, 11, "bold") for group in panels.values() for line in group) + 16
    columns = min(COLUMNS, len(panels))
    width = (WIDTH - 2 * MARGIN - LEFT - labels - GAP * (columns - 1)) / columns
    rows = -(-len(panels) // columns)
    height = PLOT + 84
    sheet = Sheet(
        TOP + rows * height + 15 * len(notes) - 26,
        "Cost of a frame",
        "milliseconds per frame when embedding, lower is better",
    )
    highest = max(cost for group in panels.values() for line in group for cost in line.costs)
    for i, ((axis, preset), group) in enumerate(panels.items()):
        place = Place(MARGIN + LEFT + i % columns * (width + GAP), TOP + i // columns * height, width, PLOT)
        ax = sheet.axes(place)
        _frame(ax, axis, group, highest)
        last = i % columns == columns - 1 or i == len(panels) - 1
        _draw(ax, group, place, labelled=last)
        sheet.text(place.left, place.top - 14, f"{preset}, {AXES.get(axis, axis)}", weight="bold", size=13)
    sheet.footnotes(TOP + rows * height - 34, notes)
    return sheet


def series(results: Results) -> dict[tuple[str, str], list[Workload]]:
    """(axis, preset) -> its workloads in the order of their values."""
    found: dict[tuple[str, str], list[Workload]] = {}
    for workload in results.workloads:
        if workload.scaling and workload.frames and workload.timed:
            found.setdefault((workload.scaling.axis, workload.preset), []).append(workload)
    order = list(AXES)
    keys = sorted(found, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key))
    return {key: sorted(found[key], key=lambda w: w.scaling.value if w.scaling else 0) for key in keys}


def lines(workloads: Sequence[Workload]) -> list[Line]:
    """The costs of every implementation along an axis."""
    points: dict[str, list[tuple[int, float]]] = {}
    wide: dict[str, bool] = {}
    for workload in workloads:
        assert workload.scaling
        assert workload.frames
        for outcome in workload.timed:
            assert outcome.median
            points.setdefault(outcome.name, []).append((workload.scaling.value, outcome.median * 1e3 / workload.frames))
            wide[outcome.name] = outcome.is_float32
    return [
        Line(name, wide[name], *(tuple(column) for column in zip(*pairs, strict=True)))
        for name, pairs in points.items()
    ]


def _frame(ax: Axes, axis: str, group: Sequence[Line], highest: float) -> None:
    values = sorted({value for line in group for value in line.values})
    ax.set(xscale="log", ylim=(0, highest * 1.06), xlim=(values[0] / 1.08, values[-1] * 1.04))
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel(AXES.get(axis, axis), **text_style(12, QUIET))
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(QUIET)
    ax.tick_params(colors=QUIET, labelsize=8.5, length=0)


def _draw(ax: Axes, group: Sequence[Line], place: Place, labelled: bool) -> None:
    for line in group:
        ours = line.name.startswith("hstl_fast")
        ax.plot(
            line.values,
            line.costs,
            color=_color(line),
            linewidth=2.4 if ours else 1.4,
            linestyle="-" if line.is_float32 else (0, (3, 2)),
            marker="o",
            markersize=5.5 if ours else 4,
            zorder=4 if ours else 3,
            clip_on=False,
        )
    if labelled:
        _label(ax, group, place)


def _label(ax: Axes, group: Sequence[Line], place: Place) -> None:
    """Names at the ends of the lines, pushed apart where lines meet."""
    scale = ax.get_ylim()[1]
    heights = spread([line.costs[-1] / scale * place.height for line in group], 15)
    for line, height in zip(group, heights, strict=True):
        weight = "bold" if line.name.startswith("hstl_fast") else "normal"
        arrow = {"arrowstyle": "-", "color": _color(line), "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
        ax.annotate(
            line.name,
            (line.values[-1], line.costs[-1]),
            (1 + 12 / place.width, height / place.height),
            textcoords="axes fraction",
            va="center",
            arrowprops={**arrow, "relpos": (0, 0.5)},
            **text_style(11, _color(line), weight=weight),
        )


def _color(line: Line) -> str:
    if line.name.startswith("hstl_fast"):
        return OURS
    return COLORS.get(line.name, COLORS.get(line.name.split(" ")[0], QUIET))
