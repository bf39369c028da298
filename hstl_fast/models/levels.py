"""The levels of a network's hierarchy: which region of the body each part of an embedding stands for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from hstl_fast.models.config import HSTLConfig


class Level(NamedTuple):
    """The regions of one level.

    Attributes:
        title: Its name, such as `Stage 2`.
        first: The number of its first part.
        split: The heights of its regions from head to feet, in any unit.
    """

    title: str
    first: int
    split: Sequence[int]

    @property
    def parts(self) -> range:
        """The numbers of its parts."""
        return range(self.first, self.first + len(self.split))

    @property
    def spans(self) -> list[tuple[float, float]]:
        """The top and bottom of each region, as shares of the height from the top."""
        ends = list(accumulate(self.split, initial=0))
        return [(top / ends[-1], bottom / ends[-1]) for top, bottom in pairwise(ends)]


def levels(config: HSTLConfig) -> list[Level]:
    """List the levels of a network.

    Args:
        config: The network.

    Returns:
        The levels, coarse to fine, in the order of their parts.
    """
    titles = ["Stage 1", "Stage 2", "Stage 2, FTA", *(f"Stage {i}" for i in range(3, len(config.stages) + 2)), "Strips"]
    splits = [*(split for _, _, split in config.pools), (1,) * config.strips]
    first = accumulate((len(split) for split in splits), initial=0)
    return [Level(*each) for each in zip(titles, first, splits)]


def part_spans(config: HSTLConfig) -> list[tuple[float, float]]:
    """List where each part begins and ends.

    Args:
        config: The network.

    Returns:
        Shares of the height from the top, in the order of the parts.
    """
    return [span for level in levels(config) for span in level.spans]
