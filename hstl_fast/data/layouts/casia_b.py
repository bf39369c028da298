"""CASIA-B as its silhouettes are published: `001/nm-01/090/001-nm-01-090-001.png`."""

from __future__ import annotations

from collections.abc import Iterator

from hstl_fast.data.layouts.base import Candidate, Layout, Leaf
from hstl_fast.data.layouts.walk import Walk

PERSON, KIND, VIEW = r"\d{1,3}", r"(?:nm|bg|cl)-?\d{1,2}", r"\d{1,3}"


def _fits(leaf: Leaf) -> bool:
    return leaf.has_pictures and leaf.under(f"{PERSON}/{KIND}/{VIEW}")


def _of_one_person(leaf: Leaf) -> bool:
    return leaf.has_pictures and leaf.under(f"{KIND}/{VIEW}")


def _candidates(walk: Walk, pattern: str | None) -> Iterator[Candidate]:
    yield from (Candidate(*each) for each in walk.views(PERSON, KIND, VIEW) if walk.has_frames(each[-1]))


LAYOUT = Layout("casia-b", "001/nm-01/090/001-nm-01-090-001.png", _fits, _candidates, of_one_person=_of_one_person)
