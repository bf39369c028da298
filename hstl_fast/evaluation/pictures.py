"""Pictures of an evaluation: a heat map for each table of views, and the CMC curves. Needs the extra `[plot]`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hstl_fast.evaluation.protocols.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The kinds of files that pictures can be written as.
SUFFIXES = (".png", ".svg", ".pdf")
_STYLE = {"font.size": 9, "svg.hashsalt": "hstl_fast", "axes.titlesize": 10}
# So many gallery views fit the width with a number in each cell.
_NUMBERED = 14
# A function that draws into the axes of a picture.
Panel = Callable[["Axes"], None]


def require_matplotlib() -> Any:
    """Import matplotlib.

    Returns:
        The package.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(
            f"pictures need matplotlib, which could not be imported ({error}); "
            "install it with: pip install 'hstl_fast[plot]'"
        ) from error
    return mpl


def picture_names(outcome: Outcome) -> list[str]:
    """Name the pictures of an evaluation.

    Args:
        outcome: The evaluation.

    Returns:
        Names without suffix: `rank1-<table>` for each table by two views, `cmc` where there are curves.
    """
    return list(_panels(outcome))


def draw_pictures(outcome: Outcome, suffix: str = ".png") -> dict[str, bytes]:
    """Draw the pictures of an evaluation, each as a file.

    Args:
        outcome: The evaluation.
        suffix: The kind of file, one of `SUFFIXES`.

    Returns:
        The contents of the files by their names without suffix; empty where there is nothing to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return {name: draw_panels([panel], suffix) for name, panel in _panels(outcome).items()}


def draw_sheet(outcome: Outcome, suffix: str = ".png") -> bytes:
    """Draw all pictures of an evaluation in one file.

    Args:
        outcome: The evaluation.
        suffix: The kind of file, one of `SUFFIXES`.

    Returns:
        The content of the file.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The evaluation has nothing to draw.
    """
    panels = list(_panels(outcome).values())
    if not panels:
        raise ValueError(f"{outcome.protocol} has neither tables nor curves to draw")
    return draw_panels(panels, suffix)


def _panels(outcome: Outcome) -> dict[str, Panel]:
    tables = {name: table for name, table in outcome.tables.items() if _is_square(table, len(outcome.views))}
    panels: dict[str, Panel] = {
        f"rank1-{name}": lambda axes, name=name, table=table: _heat_map(axes, outcome, name, table)  # type: ignore[misc]
        for name, table in tables.items()
    }
    if outcome.curves:
        panels["cmc"] = lambda axes: _curves(axes, outcome)
    return panels


def _is_square(table: Any, count: int) -> bool:
    """Whether a table is by probe view and gallery view, with a number somewhere."""
    if not isinstance(table, list) or not count or len(table) != count:
        return False
    return any(value is not None for row in table for value in row)


def draw_panels(panels: list[Panel], suffix: str) -> bytes:
    """Draw some axes beside and below each other in one file, in one style whatever the user's own settings.

    Args:
        panels: A function for each axes.
        suffix: The kind of file, one of `SUFFIXES`.

    Returns:
        The content of the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _own_style():
        figure = _figure(len(panels))
        for panel, axes in zip(panels, figure.axes, strict=True):
            panel(axes)
        file = io.BytesIO()
        # The same evaluation gives the same file.
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)
        return file.getvalue()


def _figure(count: int) -> Figure:
    from matplotlib.figure import Figure

    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(6.6 * columns, 5.4 * rows), layout="constrained")
    for i in range(count):
        figure.add_subplot(rows, columns, i + 1)
    return figure


@contextmanager
def _own_style() -> Iterator[None]:
    """Draw in the block with one style, whatever the user's own settings of matplotlib."""
    mpl = require_matplotlib()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _heat_map(axes: Axes, outcome: Outcome, name: str, table: list[list[float | None]]) -> None:
    values = np.array([[np.nan if value is None else value for value in row] for row in table])
    image = axes.imshow(values, vmin=0, vmax=100, cmap="viridis")
    places = range(len(outcome.views))
    axes.set_xticks(places, outcome.views, rotation=45 if len(outcome.views) > 8 else 0)
    axes.set_yticks(places, outcome.views)
    axes.set_xlabel("gallery view")
    axes.set_ylabel("probe view")
    axes.set_title(f"{outcome.title}: {name.replace('_', ' ')}, rank-1 (%)", parse_math=False)
    if len(outcome.views) <= _NUMBERED:
        for (i, j), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="black" if value > 60 else "white")
    axes.figure.colorbar(image, ax=axes, fraction=0.046)


def _curves(axes: Axes, outcome: Outcome) -> None:
    for name, curve in outcome.curves.items():
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, label=name)
    longest = max(map(len, outcome.curves.values()))
    axes.set_xlim(0.5, longest + 0.5)
    axes.set_xticks([1, *range(5, longest + 1, 5)])
    axes.set_xlabel("rank")
    axes.set_ylabel("probes with a match (%)")
    axes.set_title(f"{outcome.title}: CMC", parse_math=False)
    axes.grid(alpha=0.3)
    if len(outcome.curves) > 1:
        axes.legend()
