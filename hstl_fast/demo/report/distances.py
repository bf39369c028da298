"""The section of the report with matrices of distances, probes by gallery."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from hstl_fast.demo.report.text import body, magnitude, power_of_ten
from hstl_fast.demo.runs import Answer, Findings, hits
from hstl_fast.demo.scene import Walk
from hstl_fast.evaluation import identity

# Cells hold numbers beside colours up to this size of the gallery.
_MOST_NUMBERS = 8
# The farthest cell has the first shade; from the second shade on, writing is light.
_FAINTEST, _DARK = 0.06, 0.8


def distances_section(findings: Findings, films: Mapping[str, str]) -> str:
    """Write one matrix for each kind of probe; `films` are the style classes of the walks."""
    unit = magnitude(float(findings.distances.max()))
    look = _Look(films, unit, numbers=len(findings.scene.gallery) <= _MOST_NUMBERS)
    kinds = dict.fromkeys(probe.kind for probe in findings.scene.probes)
    tables = "".join(f'<div class="scroll">{_matrix(findings, kind, look)}</div>' for kind in kinds)
    units = f" Numbers are in units of {power_of_ten(unit)}." if look.numbers and unit else ""
    return f"""<section>
<h2>Distances</h2>
<p class="soft">Probes from top to bottom, known walks from left to right. A distance is the mean over all parts of the
Euclidean distance of their vectors; each row is shaded from its smallest to its largest.{units}</p>
<div class="key"><span><i style="background: rgb(var(--accent-rgb))"></i>near</span>
<span><i style="background: rgb(var(--accent-rgb) / .1)"></i>far</span>
<span><i class="self"></i>the right answer</span>
<span><i style="background: rgb(var(--warm-rgb))"></i>the nearest, but wrong</span></div>
<div class="grids">{tables}</div>
</section>"""


class _Look(NamedTuple):
    films: Mapping[str, str]
    unit: int
    numbers: bool


def _matrix(findings: Findings, kind: str, look: _Look) -> str:
    gallery = findings.scene.gallery
    pairs = [
        (answer, distances)
        for answer, distances in zip(findings.answers, findings.distances.tolist(), strict=True)
        if answer.probe.kind == kind
    ]
    heads = "".join(f'<th class="axis" scope="col">{_head(walk, look)}</th>' for walk in gallery)
    rows = "".join(_row(answer, distances, gallery, look) for answer, distances in pairs)
    return (
        f'<table class="heat{"" if look.numbers else " dense"}">'
        f"<caption>{kind} <span>{hits(answer for answer, _ in pairs)}</span></caption>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(answer: Answer, distances: Sequence[float], gallery: Sequence[Walk], look: _Look) -> str:
    low, high = min(distances), max(distances)
    shades = [1.0 if high == low else 1 - (distance - low) / (high - low) for distance in distances]
    cells = "".join(
        _cell(answer, walk, distance, _FAINTEST + (1 - _FAINTEST) * shade**1.5, look)
        for walk, distance, shade in zip(gallery, distances, shades, strict=True)
    )
    return f'<tr><th class="side" scope="row">{_head(answer.probe, look)}</th>{cells}</tr>'


def _cell(answer: Answer, walk: Walk, distance: float, shade: float, look: _Look) -> str:
    own = identity(walk.name) == identity(answer.probe.name)
    missed = walk is answer.nearest and not own
    kinds = {"dark": shade >= _DARK, "self": own, "missed": missed}
    classes = " ".join(name for name, holds in kinds.items() if holds)
    title = escape(f"{answer.probe.name} to {walk.name}: {distance:.6f}")
    number = f"{distance / 10**look.unit:.2f}" if look.numbers else ""
    return f'<td class="{classes}" style="--near: {shade:.3f}" title="{title}">{number}</td>'


def _head(walk: Walk, look: _Look) -> str:
    return f'<span title="{escape(walk.name)}">{body(look.films[walk.name], identity(walk.name), still=True)}</span>'
