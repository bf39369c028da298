"""Comparison of a hierarchy with those of the published networks."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import NamedTuple

from hstl_fast.hierarchy.tree import Hierarchy
from hstl_fast.models.config import PRESETS


class Comparison(NamedTuple):
    """A tree beside a published hierarchy, cut at the same numbers of regions.

    Attributes:
        preset: The published network.
        published: Its splits, in eighths of the body's height.
        found: The tree's splits, in its strips; None where the tree has fewer strips than regions are asked for.
        equal: For each split, whether all its boundaries are the tree's.
        shared: For each split, how many of its boundaries are the tree's.
        chance: For each split, the share of all contiguous splits into as many regions that are equal to it, 1 over
            their number.
    """

    preset: str
    published: list[list[int]]
    found: list[list[int]] | None
    equal: list[bool]
    shared: list[int]
    chance: list[float]


# Every published boundary lies on a multiple of this share of the body's height.
EIGHTH = 8


def published_splits(preset: str) -> list[list[int]]:
    """List the splits of a published network, in eighths of the body's height.

    Args:
        preset: A key of `PRESETS`.

    Returns:
        The splits, coarse to fine.
    """
    config = PRESETS[preset]
    return [[rows * EIGHTH // config.rows for rows in stage.split] for stage in config.stages]


def compare_with_published(hierarchy: Hierarchy) -> list[Comparison]:
    """Cut a tree as the published networks are cut.

    `grew` has the regions of `oumvlp` and is left out.

    Args:
        hierarchy: The tree.

    Returns:
        A comparison for each published hierarchy.
    """
    return [_compared(hierarchy, name) for name in PRESETS if name != "grew"]


def _compared(hierarchy: Hierarchy, preset: str) -> Comparison:
    published = published_splits(preset)
    counts = [len(split) for split in published]
    if max(counts) > hierarchy.strips:
        return Comparison(preset, published, None, [False] * len(counts), [0] * len(counts), [0.0] * len(counts))
    found = hierarchy.splits(counts)
    chance = [1 / comb(hierarchy.strips - 1, count - 1) for count in counts]
    pairs = [(_boundaries(one), _boundaries(other)) for one, other in zip(published, found, strict=True)]
    shared = [len(one & other) for one, other in pairs]
    return Comparison(preset, published, found, [one == other for one, other in pairs], shared, chance)


def _boundaries(split: list[int]) -> set[Fraction]:
    """Boundaries as shares of the body's height."""
    return {Fraction(sum(split[:i]), sum(split)) for i in range(1, len(split))}
