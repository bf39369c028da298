"""SUSTech1K as published, with several modalities: `0000/00-nm/000/06-000-Camera-Sils_aligned.pkl`.

The raw release has folders of pictures instead: `0000/00-nm/000/Sils_aligned/`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hstl_fast.data.layouts.base import Candidate, Layout, Leaf
from hstl_fast.data.layouts.modalities import recordings
from hstl_fast.data.layouts.walk import Walk

PERSON, KIND, VIEW = r"\d{4}", r"\d{2}-[a-z]+(?:-[a-z]+)*", r"\d{3}(?:-[a-z]+)?"
MODALITY = r"PCDs|PCDs_depths|PCDs_sils|Pose|RGB_raw|Sils_aligned|Sils_raw"


def _fits(leaf: Leaf) -> bool:
    return _has_modalities(leaf, f"{PERSON}/{KIND}/{VIEW}")


def _of_one_person(leaf: Leaf) -> bool:
    return _has_modalities(leaf, f"{KIND}/{VIEW}")


def _has_modalities(leaf: Leaf, place: str) -> bool:
    """Whether files called by their modalities stand in such a place, or a folder that is."""
    if leaf.under(place):
        return leaf.has_arrays and any("-Camera-" in name or "-LiDAR-" in name for name in leaf.files)
    return leaf.under(f"{place}/(?:{MODALITY})")


def _candidates(walk: Walk, pattern: str | None) -> Iterator[Candidate]:
    for each in walk.views(PERSON, KIND, VIEW):
        yield from recordings(walk, *each, pattern)


LAYOUT = Layout(
    "sustech1k",
    "0000/00-nm/000/06-000-Camera-Sils_aligned.pkl",
    _fits,
    _candidates,
    takes_pattern=True,
    of_one_person=_of_one_person,
)
