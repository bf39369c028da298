"""The roofline: the rate of each operator against the machine's limit at its arithmetic per byte."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.core.names import WALKERS
from benchmarks.report.look import (
    FAINT,
    FLOAT32,
    INK,
    MARGIN,
    OURS,
    QUIET,
    WIDTH,
    Place,
    Sheet,
    spread,
    text_style,
    text_width,
)
from benchmarks.report.results import Outcome, Peaks, Results, Workload

HEIGHT, TOP, PLOT = 498, 96, 310
MARKERS = {"arme": "o", "astp": "s", "fta": "^", "strip_pool": "D"}
LABELS = {"arme": "ARME", "astp": "ASTP", "fta": "FTA", "strip_pool": "strip pooling"}
LEFT, BETWEEN, RIGHT = 44, 110, 76


def roofline(results: Results, notes: Sequence[str]) -> Sheet:
    """Two panels, without and with gradients; ours and the fastest float32 baseline on every operator."""
    sheet = Sheet(
        HEIGHT + 15 * len(notes),
        "Roofline: achieved GFLOP/s against arithmetic per byte moved",
        "GFLOP/s up, dense FLOP per byte (input, parameters and output moved once) to the right",
    )
    width = (WIDTH - 2 * MARGIN - LEFT - BETWEEN - RIGHT) / 2
    panels = {
        "forward": [w for w in drawn(results) if not w.training],
        "forward and backward": [w for w in drawn(results) if w.training],
    }
    limits = _limits(results)
    for column, (title, workloads) in enumerate(panels.items()):
        place = Place(MARGIN + LEFT + column * (width + BETWEEN), TOP, width, PLOT)
        ax = sheet.axes(place)
        _frame(ax, *limits)
        _roof(ax, results.peaks)
        for workload in workloads:
            _dumbbell(ax, workload)
        _networks(ax, [w for w in networks(results) if w.training == bool(column)], place)
        sheet.text(place.left, TOP - 12, title, weight="bold", size=13)
    _legend(sheet, TOP + PLOT + 48, {w.group.split(" ")[0] for w in drawn(results)})
    sheet.footnotes(HEIGHT - 12, notes)
    return sheet


def drawn(results: Results) -> list[Workload]:
    """The operators with arithmetic and traffic counted, timed by us."""
    return [w for w in results.operators if w.dense_flop and w.least_bytes and w.ours]


def networks(results: Results) -> list[Workload]:
    """Whole networks timed by us, on people's silhouettes: one clip of every preset, and the training step."""
    return [w for w in results.of("embedding", "training step") if w.ours and w.silhouettes != WALKERS]


def intensity(workload: Workload) -> float:
    """Dense operations per byte that must be moved."""
    assert workload.least_bytes
    return workload.dense_flop / workload.least_bytes


def rate(workload: Workload, outcome: Outcome) -> float:
    """Dense GFLOP/s of the median."""
    assert outcome.median
    return workload.dense_flop / outcome.median / 1e9


def _limits(results: Results) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of both axes, alike in both panels."""
    xs = [intensity(w) for w in drawn(results)]
    shown = [*drawn(results), *networks(results)]
    ys = [rate(w, outcome) for w in shown for outcome in (w.ours, w.fastest_float32_baseline()) if outcome]
    top = max([results.peaks.float32, results.peaks.bfloat16 or 0, *ys])
    return (min(xs) / 1.8, max(xs) * 1.8), (min(ys) / 1.8, top * 1.7)


def _frame(ax: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    ax.set(xscale="log", yscale="log", xlim=x, ylim=y)
    for axis, (low, high) in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_major_locator(FixedLocator([t for t in _round_numbers() if low <= t <= high]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.grid(color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(QUIET)
    ax.tick_params(colors=QUIET, labelsize=8.5, length=0)
    ax.set_xlabel("dense FLOP per byte", **text_style(12, QUIET))


def _round_numbers() -> list[float]:
    return [digit * 10.0**power for power in range(-3, 7) for digit in (1, 3)]


def _roof(ax: Axes, peaks: Peaks) -> None:
    """Slope and plateaus, labelled left of where convolutions stand."""
    xs = np.geomspace(*ax.get_xlim(), 400)
    ax.plot(xs, np.minimum(xs * peaks.copy, peaks.float32), color=INK, linewidth=1.6)
    x = 1.3 * peaks.float32 / peaks.copy
    ax.text(x, peaks.float32 / 1.12, f"float32 {peaks.float32:.0f}", va="top", **text_style(11, INK))
    if peaks.bfloat16:
        beyond = xs[xs * peaks.copy > peaks.float32]
        roof = np.minimum(beyond * peaks.copy, peaks.bfloat16)
        ax.plot(beyond, roof, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        ax.text(2 * x, peaks.bfloat16 * 1.05, f"bfloat16 {peaks.bfloat16:.0f}", va="bottom", **text_style(11, QUIET))
    _copy_label(ax, peaks)


def _copy_label(ax: Axes, peaks: Peaks) -> None:
    """Along the slope, where it has the room."""
    x = ax.get_xlim()[0] * 1.25
    y = x * peaks.copy
    (x0, y0), (x1, y1) = ax.transData.transform([(x, y), (2 * x, 2 * y)])
    angle = float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))
    label = f"copy {peaks.copy:.0f} GB/s"
    ax.text(x, y * 1.25, label, rotation=angle, rotation_mode="anchor", **text_style(11, INK))


def _dumbbell(ax: Axes, workload: Workload) -> None:
    """Ours and the fastest baseline, one above the other."""
    ours, other, x = workload.ours, workload.fastest_float32_baseline(), intensity(workload)
    assert ours
    marker = MARKERS.get(workload.group.split(" ")[0], "o")
    if other:
        ax.plot([x, x], [rate(workload, other), rate(workload, ours)], color=FLOAT32, linewidth=1, zorder=2)
        ax.scatter(x, rate(workload, other), s=30, marker=marker, color=FLOAT32, linewidth=0, zorder=3)
    ax.scatter(x, rate(workload, ours), s=30, marker=marker, color=OURS, edgecolor="white", linewidth=0.6, zorder=4)


def _networks(ax: Axes, workloads: Sequence[Workload], place: Place) -> None:
    """Whole networks, whose traffic is not counted: marks on the right edge, ours named."""
    low, high = np.log10(ax.get_ylim())
    rates = [rate(w, w.ours) for w in workloads if w.ours]
    heights = [(np.log10(value) - low) / (high - low) * place.height for value in rates]
    edge = ax.get_xlim()[1]
    for workload, value, height, free in zip(workloads, rates, heights, spread(heights, 14), strict=True):
        other = workload.fastest_float32_baseline()
        if other:
            ax.plot(edge, rate(workload, other), "<", color=FLOAT32, markersize=5, clip_on=False, zorder=5)
        ax.plot(edge, value, "<", color=OURS, markersize=5, clip_on=False, zorder=6)
        ax.annotate(
            f"{workload.preset} {value:.0f}",
            (1, height / place.height),
            (1 + 14 / place.width, free / place.height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": OURS, "linewidth": 0.6, "shrinkB": 4, "relpos": (0, 0.5)},
            **text_style(11, OURS, weight="bold"),
        )


def _legend(sheet: Sheet, top: float, kinds: set[str]) -> None:
    ax = sheet.axes(Place(MARGIN, top, WIDTH - 2 * MARGIN, 20))
    ax.set(xlim=(0, WIDTH - 2 * MARGIN), ylim=(0, 20))
    ax.set_axis_off()
    entries = [("hstl_fast", OURS, "s"), ("fastest other in float32", FLOAT32, "s")]
    entries += [(LABELS[kind], INK, MARKERS[kind]) for kind in LABELS if kind in kinds]
    entries.append(("whole network", INK, "<"))
    x = float(LEFT)
    for text, color, marker in entries:
        ax.scatter(x + 4, 10, s=36, marker=marker, color=color, linewidth=0)
        ax.text(x + 14, 9.5, text, va="center", **text_style(12, INK))
        x += 14 + text_width(text) + 22
