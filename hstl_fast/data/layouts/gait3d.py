"""Gait3D as its silhouettes are published, in `2D_Silhouettes`: `0000/camid0_videoid2/seq0/human_crop_f11627.png`."""

from __future__ import annotations

from collections.abc import Iterator

from hstl_fast.data.layouts.base import Candidate, Layout, Leaf
from hstl_fast.data.layouts.walk import Walk

PERSON, CAMERA, SEQUENCE = r"\d{4}", r"camid\d+_videoid\d+", r"seq\d+"
# Beside it, in the same folder, stand poses, meshes and parsings.
SILHOUETTES = "2D_Silhouettes"


def _fits(leaf: Leaf) -> bool:
    return leaf.has_pictures and leaf.under(f"{PERSON}/{CAMERA}/{SEQUENCE}")


def _of_one_person(leaf: Leaf) -> bool:
    return leaf.has_pictures and leaf.under(f"{CAMERA}/{SEQUENCE}")


def _candidates(walk: Walk, pattern: str | None) -> Iterator[Candidate]:
    yield from (Candidate(*each) for each in walk.views(PERSON, CAMERA, SEQUENCE) if walk.has_frames(each[-1]))


LAYOUT = Layout(
    "gait3d",
    "0000/camid0_videoid2/seq0/human_crop_f11627.png",
    _fits,
    _candidates,
    of_one_person=_of_one_person,
)
