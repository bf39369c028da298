"""OUMVLP as its silhouettes are published, view first: `Silhouette_090-01/00002/0001.png`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hstl_fast.data.layouts.base import Candidate, Layout, Leaf
from hstl_fast.data.layouts.walk import Walk

VIEW_AND_SEQUENCE, PERSON = r"Silhouette_(\d{3})-(\d{2})", r"\d{5}"


def _fits(leaf: Leaf) -> bool:
    return leaf.has_pictures and leaf.under(f"{VIEW_AND_SEQUENCE}/{PERSON}")


def _candidates(walk: Walk, pattern: str | None) -> Iterator[Candidate]:
    for name, outer in walk.folders("", VIEW_AND_SEQUENCE):
        view, sequence = re.findall(r"\d+", name)
        for label, folder in walk.folders(outer, PERSON):
            if walk.has_frames(folder):
                yield Candidate(label, sequence, view, folder)


LAYOUT = Layout("oumvlp", "Silhouette_090-01/00002/0001.png", _fits, _candidates)
