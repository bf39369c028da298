"""Rank changes: how many probes find another nearest sequence than in float64.

An error of a few percent says little of what a search finds: a systematic one moves all embeddings alike.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Embeddings `[n, parts, c]` of clips, each given as `[t, 64, 44]`.
Embed = Callable[[Sequence[Tensor]], Tensor]


class Search(NamedTuple):
    """A small gallery with one clip of each person, and as many probes: another clip of each."""

    gallery: tuple[Tensor, ...]
    probes: tuple[Tensor, ...]


class RankChanges(NamedTuple):
    """So many of the probes have another nearest sequence of the gallery than in float64."""

    changed: int
    probes: int

    @property
    def fault(self) -> str | None:
        """A sentence if more than half of the answers change, or None: chance changes nearly all of them."""
        if 2 * self.changed <= self.probes:
            return None
        return f"{self.changed} of {self.probes} rank-1 answers are not those of float64, half allowed"


def rank_changes(embed: Embed, expected: Tensor, search: Search) -> RankChanges:
    """The changes where gallery and probes are embedded by `embed`, each clip by itself; `expected` is of `nearest`."""
    gallery, probes = (torch.cat([embed([clip]) for clip in clips]) for clips in search)
    return RankChanges(int((nearest(gallery, probes) != expected).sum()), len(search.probes))


def nearest(gallery: Tensor, probes: Tensor) -> Tensor:
    """The index of each probe's nearest sequence `[probes]`, by the mean over parts of the Euclidean distance."""
    distances = [
        (g[:, None] - p[None]).norm(dim=2)
        for g, p in zip(gallery.double().unbind(1), probes.double().unbind(1), strict=True)
    ]
    return torch.stack(distances).mean(0).argmin(0)
