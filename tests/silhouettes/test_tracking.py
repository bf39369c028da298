"""Runs of one person: what cuts them, what is left out of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")

from hstl_fast.silhouettes.video.blobs import Blob, find_blobs, overlaps
from hstl_fast.silhouettes.video.foreground import BackgroundModel, training_indices
from hstl_fast.silhouettes.video.tracking import MAX_GAP, gapless, track_people


def scene(*people: tuple[int, int], size: tuple[int, int] = (70, 24)) -> NDArray[np.bool_]:
    """A mask `[120, 300]` with a body of `size` (height, width) at every (top, left)."""
    mask = np.zeros((120, 300), bool)
    for top, left in people:
        mask[top : top + size[0], left : left + size[1]] = True
    return mask


def blobs_of(masks: list[NDArray[np.bool_]]) -> list[list[Blob]]:
    return [find_blobs(mask, t, 48) for t, mask in enumerate(masks)]


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


def test_a_walk_is_one_run() -> None:
    (run,) = track_people(blobs_of([scene((20, 20 + 4 * t)) for t in range(50)]))
    assert [b.frame for b in run] == list(range(50))


def test_two_people_side_by_side_are_two_runs_in_order() -> None:
    runs = track_people(blobs_of([scene((20, 20 + 3 * t), (25, 70 + 3 * t)) for t in range(40)]))
    assert [len(run) for run in runs] == [40, 40]
    assert runs[0][0].box[0] == 20


def test_runs_stop_where_people_touch_and_start_where_they_part() -> None:
    masks = [scene((20, 20 + 4 * t), (30, 240 - 4 * t)) for t in range(55)]
    blobs = blobs_of(masks)
    together = [t for t in range(55) if len(blobs[t]) == 1]
    assert 5 < len(together) < 20
    runs = track_people(blobs)
    assert len(runs) == 4
    for run in runs:
        frames = [b.frame for b in run]
        assert frames[-1] < together[0] or frames[0] > together[-1]
        assert all(b.box[2] <= 24 for b in run)


def test_a_short_meeting_cuts_both_runs() -> None:
    """One frame of contact: which of the two goes on cannot be known, even though the tracker has an opinion."""
    masks = [scene((20, 40 + 3 * min(t, 20)), (20, 195 - 3 * min(t, 20))) for t in range(40)]
    masks[20][50:60, 100:150] = True
    assert [len(frame) for frame in blobs_of(masks)[19:22]] == [2, 1, 2]
    assert [len(run) for run in track_people(blobs_of(masks))] == [20, 20, 19, 19]


def test_people_who_are_together_from_the_beginning_are_not_a_run() -> None:
    masks = [scene((20, 20 + 4 * t), (20, 38 + 4 * t)) for t in range(20)]
    masks += [scene((20, 100 + 2 * t), (20, 130 + 5 * t)) for t in range(20)]
    runs = track_people(blobs_of(masks))
    assert [run[0].frame for run in runs] == [20, 20]


@pytest.mark.parametrize(("gap", "runs"), [(1, 1), (MAX_GAP, 1), (MAX_GAP + 1, 2), (12, 2)])
def test_gaps(gap: int, runs: int) -> None:
    masks = [scene((20, 20 + 2 * t)) if not 20 <= t < 20 + gap else scene() for t in range(60)]
    assert len(track_people(blobs_of(masks))) == runs


def test_frames_of_another_size_are_left_out() -> None:
    masks = [scene((20, 20 + 3 * t)) for t in range(40)]
    masks[17] = scene((20, 20 + 3 * 17), size=(58, 24))
    masks[18] = scene((20, 20 + 3 * 18), size=(84, 24))
    (run,) = track_people(blobs_of(masks))
    assert [b.frame for b in run] == [t for t in range(40) if t not in (17, 18)]


def test_frames_at_the_border_are_left_out() -> None:
    (run,) = track_people(blobs_of([scene((20, 4 * t)) for t in range(70)]))
    assert run[0].frame == 1
    assert run[-1].box[0] + 24 < 299


def test_a_shape_of_the_wrong_height_for_its_place_is_left_out() -> None:
    """Two people who walk as one blob, in front of others who walk where they do."""
    single = [[scene((30, 10 + 2 * t))] for t in range(120)]
    pair = [[scene((5, 10 + 2 * t), size=(95, 40))] for t in range(40)]
    runs = track_people(blobs_of([m[0] for m in [*single, *[[scene()]] * 10, *pair]]))
    assert [len(run) for run in runs] == [120]


def test_nobody() -> None:
    assert track_people(blobs_of([scene() for _ in range(5)])) == []
    assert track_people([]) == []


def test_gapless() -> None:
    assert [range(10)[s] for s in gapless([0, 1, 5, 10, 11])] == [range(3), range(3, 5)]
    assert gapless([]) == []


def test_background_model_tells_bodies_from_shadows_specks_and_lines() -> None:
    rng = np.random.default_rng(0)
    wall = rng.integers(100, 200, (80, 120, 3))

    def shot() -> NDArray[np.uint8]:
        return (wall + rng.normal(0, 2, wall.shape)).clip(0, 255).astype(np.uint8)

    model = BackgroundModel([shot() for _ in range(40)])
    frame = shot()
    frame[20:60, 20:40] = 10
    frame[20:60, 60:80] = (frame[20:60, 60:80] * 0.7).astype(np.uint8)
    frame[70, 10:110] = 10
    frame[5, 5] = 10
    mask = model.mask(frame)
    assert mask[22:58, 22:38].all()
    mask[19:61, 19:41] = False
    assert mask.mean() < 0.002
    np.testing.assert_array_equal(model.mask(frame), model.mask(frame))


def test_training_frames_are_spread_and_bounded() -> None:
    indices = training_indices(10_000, 1000)
    assert (indices[0], indices[-1], len(indices)) == (0, 9_999, 200)
    assert len(training_indices(10_000, 100 * 2**20)) == 5
    assert training_indices(7, 1000).tolist() == list(range(7))
    assert len(training_indices(1, 2**40)) == 1
