"""The style of all pictures: sizes in pixels, colours, text; one sheet gives one file."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from benchmarks.report.results import Outcome

# Pixels per inch, as in browsers.
PIXELS = 96
# Every picture is as wide as the text of a document on GitHub.
WIDTH = 860
MARGIN = 16

INK, QUIET, FAINT, AMBER, WRONG = "#1f2328", "#59636e", "#d8dee4", "#8a5a00", "#b42318"
# Our own, baselines in float32, and in narrower types: distinct for the colour-blind, and by hatching.
OURS, FLOAT32, NARROW = "#0072b2", "#a7b0ba", "#e69f00"

_FONT = "DejaVu Sans"
# Browsers show these, which are narrower than the font of the layout, so that nothing overlaps.
_SHOWN_FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
_STYLE: dict[Any, Any] = {
    "font.family": [_FONT],
    "svg.fonttype": "none",
    "svg.hashsalt": "hstl_fast",
    "hatch.linewidth": 1.4,
    "path.simplify": False,
}


class Place(NamedTuple):
    """A rectangle in pixels from the upper left corner."""

    left: float
    top: float
    width: float
    height: float


class Sheet:
    """A white page of `WIDTH` x `height` pixels with a heading."""

    def __init__(self, height: float, heading: str, below: str) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / PIXELS, height / PIXELS), dpi=PIXELS, facecolor="white")
        self.text(MARGIN, 28, heading, size=15, weight="bold")
        self.text(MARGIN, 48, below, color=QUIET)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text at (x, y) pixels, on its baseline."""
        self.figure.text(x / WIDTH, 1 - y / self.height, text, **text_style(**style))

    def axes(self, place: Place) -> Axes:
        bottom = self.height - place.top - place.height
        return self.figure.add_axes(
            (place.left / WIDTH, bottom / self.height, place.width / WIDTH, place.height / self.height)
        )

    def footnotes(self, top: float, lines: Sequence[str]) -> None:
        for i, line in enumerate(lines):
            self.text(MARGIN, top + 12 + 15 * i, line, color=QUIET, size=11)

    def svg(self, title: str, source: str) -> str:
        """The picture as text; the same sheet gives the same text."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", metadata=_metadata(title, source))
        return file.getvalue().replace(f"'{_FONT}'", _SHOWN_FONT)


@contextmanager
def our_style() -> Iterator[None]:
    """Draw and save with this style in the block, whatever the user's own settings of matplotlib."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _STYLE.items():
            mpl.rcParams[name] = value
        yield


def text_style(size: float = 12, color: str = INK, **more: Any) -> dict[str, Any]:
    """Text of `size` pixels; a dollar sign is one, not the start of a formula."""
    return {"fontsize": size * 72 / PIXELS, "color": color, "fontfamily": _FONT, "parse_math": False, **more}


def text_width(text: str, size: float = 12, weight: str = "normal") -> float:
    """Pixels that the text takes at most."""
    font = FontProperties(family=_FONT, weight=weight)
    return float(TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=font).get_extents().width)


def bar_style(outcome: Outcome) -> dict[str, Any]:
    """Ours is blue, float32 is filled, anything narrower is hatched."""
    color = OURS if outcome.ours else FLOAT32 if outcome.is_float32 else NARROW
    if outcome.is_float32:
        return {"facecolor": color, "edgecolor": color, "linewidth": 0}
    return {"facecolor": "white", "edgecolor": color, "linewidth": 1, "hatch": "////"}


def wrapped(notes: Sequence[str]) -> list[str]:
    """Notes as lines that fit the width."""
    return [line for note in notes for line in textwrap.wrap(note, 132)]


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, in the order of `wanted` and as near to it as pushing neighbours apart allows."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    clusters: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        clusters.append([i])
        centres.append(wanted[i])
        while len(clusters) > 1 and centres[-1] - centres[-2] < gap * (len(clusters[-1]) + len(clusters[-2])) / 2:
            last, _ = clusters.pop(), centres.pop()
            clusters[-1] += last
            centres[-1] = sum(wanted[j] for j in clusters[-1]) / len(clusters[-1])
    placed = [0.0] * len(wanted)
    for members, centre in zip(clusters, centres, strict=True):
        for k, i in enumerate(members):
            placed[i] = centre + gap * (k - (len(members) - 1) / 2)
    return placed


def _metadata(title: str, source: str) -> dict[str, str | None]:
    return {"Title": title, "Source": source, "Creator": "hstl_fast benchmarks.report", "Date": None}
