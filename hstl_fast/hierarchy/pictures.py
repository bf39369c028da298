"""A picture of a hierarchy: its tree beside an average silhouette with the cuts. Needs the extra `[hierarchy]`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.pictures import SUFFIXES, require_matplotlib
from hstl_fast.hierarchy.tree import Hierarchy
from hstl_fast.models.config import COLUMNS, ROWS
from hstl_fast.names import one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SUFFIXES", "draw_hierarchy", "require_matplotlib"]

# Text stays text in SVG, which keeps the file small.
_STYLE = {"font.size": 9, "axes.titlesize": 10, "svg.hashsalt": "hstl_fast", "svg.fonttype": "none"}
# Colours and line styles of the cuts, told apart with any colour vision and in grey.
_CUTS = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", ":"), ("#CC79A7", "-."), ("#000000", (0, (1, 3))))
_TREE = "#444444"
# Inches, and the height of the axes as a share.
_SIZE, _HEIGHT = (7.6, 4.8), 0.74
# So many strips fit a label each.
_LABELLED = 16


def draw_hierarchy(hierarchy: Hierarchy, average: NDArray[np.float64] | None = None, suffix: str = ".png") -> bytes:
    """Draw a tree from head to feet beside an average silhouette, with the chosen cuts.

    The same hierarchy gives the same file.

    Args:
        hierarchy: The tree, with its cuts chosen.
        average: Mean silhouette `[rows, columns]`, 0 to 1, such as that of `StripFeatures`; None for none.
        suffix: The kind of file, one of `SUFFIXES`.

    Returns:
        The content of the file.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The kind of file is unknown.
    """
    one_of(suffix, SUFFIXES, "suffix")
    with _own_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=_SIZE)
        # Both axes have the height of the body; a pixel of the silhouette is as wide as it is high.
        width = _HEIGHT * _SIZE[1] / _SIZE[0] * 2 * _half_width(average)
        body, tree = figure.add_axes((0.09, 0.13, width, _HEIGHT)), figure.add_axes((0.47, 0.13, 0.51, _HEIGHT))
        _draw_body(body, hierarchy, average)
        _draw_tree(tree, hierarchy)
        figure.text(0.09, 0.955, _title(hierarchy), fontsize=10, parse_math=False)
        if hierarchy.clusters:
            figure.legend(loc="upper right", bbox_to_anchor=(0.99, 0.955), ncols=len(hierarchy.clusters), frameon=False)
        file = io.BytesIO()
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)
    return file.getvalue()


@contextmanager
def _own_style() -> Iterator[None]:
    """Draw in the block with one style, whatever the user's own settings of matplotlib."""
    mpl = require_matplotlib()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _title(hierarchy: Hierarchy) -> str:
    title = f"{hierarchy.features} features, {hierarchy.linkage} linkage"
    return title + (f", {hierarchy.sequences} sequences" if hierarchy.sequences else "")


def _half_width(average: NDArray[np.float64] | None) -> float:
    """Half the width of a silhouette, as a share of its height."""
    rows, columns = (ROWS, COLUMNS) if average is None else average.shape
    return float(columns / rows / 2)


def _draw_body(axes: Axes, hierarchy: Hierarchy, average: NDArray[np.float64] | None) -> None:
    half = _half_width(average)
    if average is not None:
        axes.imshow(average, cmap="Greys", vmin=0, vmax=1.3, extent=(-half, half, 1, 0), aspect="auto")
    axes.set_xlim(-half, half)
    axes.set_ylim(1, 0)
    drawn: set[int] = set()
    for i, split in enumerate(hierarchy.splits()):
        # A boundary is drawn once, as one of the coarsest cut that has it.
        for end in sorted(set(accumulate(split[:-1])) - drawn):
            axes.axhline(end / hierarchy.strips, linewidth=2, **_style_of_cut(i))
            drawn.add(end)
    axes.set_xticks([])
    axes.set_xlabel("average silhouette and cuts")
    axes.set_yticks(np.linspace(0, 1, 9))
    axes.set_yticklabels([f"{share:.3f}" for share in np.linspace(0, 1, 9)])
    axes.set_ylabel("share of body height, from the head")


def _style_of_cut(i: int) -> dict[str, Any]:
    colour, style = _CUTS[i % len(_CUTS)]
    return {"color": colour, "linestyle": style}


def _draw_tree(axes: Axes, hierarchy: Hierarchy) -> None:
    places = {strip: ((strip + 0.5) / hierarchy.strips, 0.0) for strip in range(hierarchy.strips)}
    for merge in hierarchy.merges:
        (upper, left), (lower, right) = places[merge.start], places.pop(merge.border)
        axes.plot([left, merge.height, merge.height, right], [upper, upper, lower, lower], color=_TREE, linewidth=1.3)
        places[merge.start] = ((upper + lower) / 2, merge.height)
    tallest = hierarchy.merges[-1].height or 1.0
    for i, count in enumerate(hierarchy.clusters):
        label = f"cut into {count}"
        axes.axvline(_height_of_cut(hierarchy, count), linewidth=1.6, label=label, **_style_of_cut(i))
    if hierarchy.strips <= _LABELLED:
        for strip in range(hierarchy.strips):
            place = (strip + 0.5) / hierarchy.strips
            axes.text(-0.015 * tallest, place, str(strip + 1), ha="right", va="center", fontsize=8)
    axes.set_xlim(-0.07 * tallest, 1.08 * tallest)
    axes.set_ylim(1, 0)
    axes.set_xlabel(f"height of the merge ({hierarchy.linkage} linkage, {hierarchy.metric} distance)")
    axes.set_yticks([])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _height_of_cut(hierarchy: Hierarchy, count: int) -> float:
    """A height between the last merge that a cut keeps and the first that it undoes."""
    heights = [0.0, *(merge.height for merge in hierarchy.merges)]
    kept = hierarchy.strips - count
    above = heights[kept + 1] if kept + 1 < len(heights) else 1.06 * heights[-1]
    return (heights[kept] + above) / 2
