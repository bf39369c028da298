"""Torn bodies and bodies that enter the picture piece by piece: no people who meet, and no people who part."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
from hstl_fast.silhouettes.video.blobs import find_blobs, join
from hstl_fast.silhouettes.video.pieces import LONGEST_TEAR, mend
from hstl_fast.silhouettes.video.tracking import track_people
from tests.silhouettes.video.masks import blobs_of


def tall(left: int, torn: bool = False, height: int = 110) -> NDArray[np.bool_]:
    """A mask `[130, 300]` with a body of 110 rows, from which 14 rows at the waist may be missing."""
    mask = np.zeros((130, 300), bool)
    mask[10 : 10 + height, left : left + 34] = True
    if torn:
        mask[58:72] = False
    return mask


@pytest.mark.parametrize("length", [1, 3, LONGEST_TEAR])
def test_pieces_of_a_short_tear_are_joined(length: int) -> None:
    blobs = blobs_of([tall(20 + 3 * t, torn=20 <= t < 20 + length) for t in range(40)])
    assert [len(frame) for frame in blobs] == [1] * 20 + [2] * length + [1] * (20 - length)
    mended, links = mend(blobs)
    assert [len(frame) for frame in mended] == [1] * 40
    assert mended[20][0].box == (80, 10, 34, 110)
    assert mended[19] is blobs[19]
    assert all(link.all() for link in links)


def test_pieces_that_stay_apart_are_not_joined() -> None:
    blobs = blobs_of([tall(20 + 3 * t, torn=20 <= t < 20 + LONGEST_TEAR + 1) for t in range(40)])
    assert [len(frame) for frame in mend(blobs)[0]] == [len(frame) for frame in blobs]


def test_a_piece_that_is_gone_is_no_tear() -> None:
    masks = [tall(20 + 3 * t, torn=t == 20) for t in range(40)]
    for mask in masks[21:]:
        mask[:60] = False
    blobs = blobs_of(masks)
    assert [len(frame) for frame in mend(blobs)[0]] == [1] * 20 + [2] + [1] * 19


@pytest.mark.parametrize(("length", "runs"), [(1, [59]), (3, [57]), (12, [30, 18])])
def test_a_walk_goes_on_after_a_tear(length: int, runs: list[int]) -> None:
    torn = range(30, 30 + length)
    masks = [tall(20 + 3 * t, torn=t in torn) for t in range(60)]
    found = [run for run in track_people(blobs_of(masks)) if run[0].height == 110]
    assert [len(run) for run in found] == runs


def test_a_body_that_enters_the_picture_in_two_pieces_is_one_run() -> None:
    """A hand and a foot are in the picture before the trunk."""
    masks = []
    for t in range(50):
        wide = np.zeros((130, 500), bool)
        left = 150 + 4 * t
        wide[10:120, left : left + 30] = True
        wide[12:60, left + 30 : left + 48] = True
        wide[71:120, left + 30 : left + 44] = True
        masks.append(wide[:, 200:])
    blobs = blobs_of(masks)
    assert 2 in [len(frame) for frame in blobs[:12]]
    (run,) = track_people(blobs)
    assert (run[0].frame, run[-1].frame) == (13, 49)
    (back,) = track_people(blobs_of([mask[:, ::-1] for mask in masks[::-1]]))
    assert len(back) == len(run)


def test_somebody_much_lower_who_walks_by_is_a_person() -> None:
    """The blob of both is one run of neither, though the lower person is less than half as high."""
    masks = []
    for t in range(60):
        mask = tall(20 + 2 * t)
        mask[68:118, 250 - 3 * t : 250 - 3 * t + 20] = True
        masks.append(mask)
    blobs = blobs_of(masks)
    together = [t for t in range(60) if len(blobs[t]) == 1]
    runs = track_people(blobs)
    assert len(runs) == 4
    assert not {b.frame for run in runs for b in run} & set(together)


def test_joined_blobs_cover_what_the_pieces_cover() -> None:
    mask = tall(50, torn=True)
    pieces = find_blobs(mask, 3, 30)
    assert len(pieces) == 2
    whole = join(pieces)
    assert (whole.frame, whole.box, whole.area, whole.touches_border) == (3, (50, 10, 34, 110), 96 * 34, False)
    np.testing.assert_array_equal(whole.mask, mask[10:120, 50:84])
    assert not whole.looks_like_a_body
