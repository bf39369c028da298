"""Data sets as OpenGait prepares them: `001/nm-01/090/090.pkl`, that is label, type, view and a file of arrays."""

from __future__ import annotations

from collections.abc import Iterator

from hstl_fast.data.layouts import sustech1k
from hstl_fast.data.layouts.base import Candidate, Layout, Leaf
from hstl_fast.data.layouts.modalities import recordings
from hstl_fast.data.layouts.walk import Walk


def _fits(leaf: Leaf) -> bool:
    return leaf.has((".pkl",)) and len(leaf.folders) == 3 and not sustech1k.LAYOUT.fits(leaf)


def _of_one_person(leaf: Leaf) -> bool:
    # A file with the name of its folder, the view, is what OpenGait alone writes.
    return len(leaf.folders) == 2 and leaf.files == (f"{leaf.folders[-1]}.pkl",)


def _candidates(walk: Walk, pattern: str | None) -> Iterator[Candidate]:
    for each in walk.views():
        yield from recordings(walk, *each, pattern)


LAYOUT = Layout(
    "opengait",
    "001/nm-01/090/090.pkl",
    _fits,
    _candidates,
    takes_pattern=True,
    of_one_person=_of_one_person,
)
