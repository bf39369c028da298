"""Blobs of a mask: what is joined, filled and left out, and which of two frames belong together."""

import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
from hstl_fast.silhouettes.video.blobs import find_blobs, overlaps
from tests.silhouettes.video.masks import scene


def test_blob_of_a_body() -> None:
    (blob,) = find_blobs(scene((20, 50)), 7, 48)
    assert (blob.frame, blob.box, blob.area, blob.touches_border, blob.looks_like_a_body) == (
        7,
        (50, 20, 24, 70),
        24 * 70,
        False,
        True,
    )
    assert blob.mask.shape == (70, 24)
    assert blob.mask.all()


def test_blob_joins_a_cut_off_head_and_drops_specks() -> None:
    mask = scene((20, 50))
    mask[34:38] = False
    mask[25, 90] = mask[60, 47] = True
    (blob,) = find_blobs(mask, 0, 48)
    assert blob.box == (50, 20, 24, 70)
    assert not blob.mask[14:18].any()


def test_blob_fills_small_holes_only() -> None:
    mask = scene((20, 50))
    mask[40:44, 60:64] = False
    mask[60:80, 54:70] = False
    (blob,) = find_blobs(mask, 0, 48)
    assert blob.mask[20:24].all()
    assert not blob.mask[41:59, 5:19].any()


@pytest.mark.parametrize(
    ("size", "person"), [((70, 24), True), ((70, 60), False), ((100, 10), False), ((49, 30), True)]
)
def test_blob_shapes(size: tuple[int, int], person: bool) -> None:
    (blob,) = find_blobs(scene((10, 50), size=size), 0, 48)
    assert blob.looks_like_a_body is person


def test_a_torn_body_does_not_look_like_one() -> None:
    mask = scene((20, 50))
    mask[50:54] = False
    (blob,) = find_blobs(mask, 0, 48)
    assert not blob.looks_like_a_body


@pytest.mark.parametrize("place", [(0, 50), (50, 50), (20, 0), (20, 276)])
def test_blob_at_the_border(place: tuple[int, int]) -> None:
    (blob,) = find_blobs(scene(place), 0, 48)
    assert blob.touches_border


def test_small_blobs_are_left_out() -> None:
    assert find_blobs(scene((20, 50), size=(47, 20)), 0, 48) == []


def test_overlaps_of_people_who_meet() -> None:
    apart = find_blobs(scene((20, 50), (20, 80)), 0, 48)
    together = find_blobs(scene((20, 55), (20, 75)), 1, 48)
    assert (len(apart), len(together)) == (2, 1)
    assert overlaps(apart, together).tolist() == [[True], [True]]
    assert overlaps(together, apart).tolist() == [[True, True]]
    assert overlaps(apart, apart).tolist() == [[True, False], [False, True]]
