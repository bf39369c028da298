"""Charts of the training report, drawn in SVG without scripts: losses by step, and the tree of a hierarchy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from hstl_fast.hierarchy import Hierarchy

# The mean of so many parts of all steps makes the smooth line.
_SMOOTHING = 30


def loss_chart(name: str, losses: Sequence[float], level: tuple[float, str]) -> str:
    """Draw a loss by step: every step faint, a moving mean on top, and a level to compare with as a dashed line.

    Args:
        name: The loss.
        losses: Its value at each step.
        level: A value, and what it is.

    Returns:
        The chart as HTML.
    """
    value, meaning = level
    top = 1.05 * max(*losses, value)
    smooth = _moving_mean(losses, max(1, len(losses) // _SMOOTHING))
    return f"""<div class="chart"><h3>{name}<span>{losses[0]:.3f} → {smooth[-1]:.3f}</span></h3>
<div class="plot"><span class="top">{top:.2g}</span><span class="zero">0</span>
<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
<polyline fill="none" class="raw" points="{_points(losses, top)}"/>
<polyline fill="none" class="mean" points="{_points(smooth, top)}"/>
<line class="level" x1="0" x2="100" y1="{_height(value, top)}" y2="{_height(value, top)}"/></svg></div>
<p class="ticks"><span>step 1</span><span>dashed: {meaning}</span><span>step {len(losses)}</span></p></div>"""


def hierarchy_chart(hierarchy: Hierarchy, film: str) -> str:
    """Draw a tree from head to feet beside an average silhouette, with the chosen cuts in both.

    Args:
        hierarchy: The tree, with its cuts chosen.
        film: The style class of the average silhouette.

    Returns:
        The chart as HTML.
    """
    drawn: set[int] = set()
    lines = []
    for number, split in enumerate(hierarchy.splits()):
        ends = set(accumulate(split[:-1])) - drawn
        drawn |= ends
        lines += [f'<i class="line c{number}" style="top: {_percent(end, hierarchy.strips)}%"></i>' for end in ends]
    labels = "".join(
        f'<i class="strip" style="top: {_percent(strip + 0.5, hierarchy.strips)}%">{strip + 1}</i>'
        for strip in range(hierarchy.strips)
    )
    cuts = "".join(
        f'<line class="cut c{number}" y1="0" y2="100" x1="{x:.2f}" x2="{x:.2f}"/>'
        for number, x in enumerate(_cut(hierarchy, count) for count in hierarchy.clusters)
    )
    return f"""<div class="tree"><div class="trunk"><span class="body still {film}" aria-hidden="true"></span>
{"".join(lines)}</div><div class="strips">{labels}</div>
<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="tree of the strips of the body">
{"".join(_brackets(hierarchy))}{cuts}</svg></div>"""


def _moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value and up to `reach` before it."""
    sums = list(accumulate(values, initial=0.0))
    return [(sums[i + 1] - sums[max(0, i - reach)]) / (i + 1 - max(0, i - reach)) for i in range(len(values))]


def _points(values: Sequence[float], top: float) -> str:
    last = max(1, len(values) - 1)
    return " ".join(f"{100 * i / last:.2f},{_height(value, top)}" for i, value in enumerate(values))


def _height(value: float, top: float) -> str:
    return f"{100 * (1 - value / top) if top else 100:.2f}"


def _percent(strips: float, total: int) -> str:
    return f"{100 * strips / total:.3f}"


def _brackets(hierarchy: Hierarchy) -> list[str]:
    """The merges, their heights to the right."""
    places = {strip: (100 * (strip + 0.5) / hierarchy.strips, 0.0) for strip in range(hierarchy.strips)}
    found = []
    for merge in hierarchy.merges:
        (upper, left), (lower, right) = places[merge.start], places.pop(merge.border)
        x = _along(hierarchy, merge.height)
        points = f"{left:.2f},{upper:.2f} {x:.2f},{upper:.2f} {x:.2f},{lower:.2f} {right:.2f},{lower:.2f}"
        found.append(f'<polyline fill="none" points="{points}"/>')
        places[merge.start] = (upper + lower) / 2, x
    return found


def _along(hierarchy: Hierarchy, height: float) -> float:
    tallest = hierarchy.merges[-1].height
    return 94 * height / tallest if tallest else 94.0


def _cut(hierarchy: Hierarchy, count: int) -> float:
    """A place between the last merge that a cut keeps and the first that it undoes."""
    heights = [0.0, *(merge.height for merge in hierarchy.merges)]
    kept = hierarchy.strips - count
    before = _along(hierarchy, heights[kept])
    after = _along(hierarchy, heights[kept + 1]) if kept + 1 < len(heights) else 100.0
    return (before + after) / 2
