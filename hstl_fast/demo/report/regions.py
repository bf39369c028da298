"""The section of the report with the regions of every level, and the rank-1 rate of each part by itself."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from hstl_fast.demo.report.text import body
from hstl_fast.demo.runs import Findings
from hstl_fast.models import HSTLConfig
from hstl_fast.models.levels import levels

# Regions of a smaller share of the height are drawn without lines between them.
_FINE = 0.035
# Regions of a larger share of the height have room for a number.
_ROOM_FOR_TEXT = 0.06


class _Level(NamedTuple):
    """The regions of one level, from top to bottom; `first` is the number of its first part."""

    title: str
    origin: str
    first: int
    split: Sequence[int]

    @property
    def numbers(self) -> str:
        count = len(self.split)
        if count == 1:
            return f"1 region, part {self.first}"
        return f"{count} regions, parts {self.first}–{self.first + count - 1}"


def regions_section(findings: Findings, films: Mapping[str, str]) -> str:
    """Draw the regions of every level over the first walker, with the rank-1 rate of each part by itself."""
    film = films[findings.scene.gallery[0].name]
    chance = 1 / len(findings.scene.gallery)
    config, probes = findings.network.model.config, len(findings.answers)
    return f"""<section>
<h2>The regions of the body</h2>
<p class="soft">Every level of the network cuts the body anew, coarse to fine; a region has weights of its own and gives
one part, a vector of {config.channels} numbers. The bars: how many of the {probes} probes each part, alone, puts
nearest to the right person. The dashed line is guessing.</p>
{levels_of_parts(config, findings.part_scores, chance, film)}
</section>"""


def levels_of_parts(config: HSTLConfig, scores: Sequence[float], chance: float, film: str) -> str:
    """Draw the regions of every level over a silhouette, with a bar for each part.

    Args:
        config: The network.
        scores: The rate of each part by itself, 0 to 1.
        chance: The rate of guessing, 0 to 1.
        film: The style class of the silhouette.

    Returns:
        The levels as HTML.
    """
    pictures = "".join(
        _picture(level, scores[level.first : level.first + len(level.split)], chance, film) for level in _levels(config)
    )
    return f'<div class="levels">{pictures}</div>'


def _levels(config: HSTLConfig) -> Iterator[_Level]:
    """The levels in the order of their parts."""
    finer = "The regions are cut finer, again with weights of their own."
    origins = [
        "Plain convolutions over the whole body.",
        "Each region is convolved with weights of its own.",
        "Maxima over time, mixed by a learned gate: a third of the frames is left.",
        *[finer] * (len(config.stages) - 1),
        "The last stage once more, in equal strips.",
    ]
    for (title, first, split), origin in zip(levels(config), origins, strict=True):
        yield _Level(title, origin, first, split)


def _picture(level: _Level, scores: Sequence[float], chance: float, film: str) -> str:
    rows = sum(level.split)
    bands, bars = [], []
    for top, height, score in zip(accumulate(level.split, initial=0), level.split, scores):
        place = f"top: {100 * top / rows:.3f}%; height: {100 * height / rows:.3f}%"
        bands.append(f'<div class="band{" fine" if height / rows < _FINE else ""}" style="{place}"></div>')
        label = f"<b>{score:.0%}</b>" if height / rows > _ROOM_FOR_TEXT else ""
        width = f"width: {100 * score:.1f}%"
        bars.append(f'<div class="score" style="{place}; {width}" title="{score:.0%}">{label}</div>')
    return (
        f'<div class="level"><h3>{level.title}<span>{level.numbers}</span></h3><p class="soft">{level.origin}</p>'
        f'<div class="cut"><div>{body(film, still=True)}{"".join(bands)}</div><div class="scores">{"".join(bars)}'
        f'<div class="chance" style="left: {100 * chance:.1f}%"></div></div></div></div>'
    )
