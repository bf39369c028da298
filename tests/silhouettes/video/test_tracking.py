"""Runs of one person: what cuts them, what is left out of them."""

import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
from hstl_fast.silhouettes.video.tracking import MAX_GAP, gapless, track_people
from tests.silhouettes.video.masks import blobs_of, scene


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


def test_people_of_two_heights_on_one_path_are_both_found() -> None:
    child = [scene((40, 10 + 2 * t), size=(50, 18)) for t in range(120)]
    adult = [scene((20, 10 + 2 * t)) for t in range(60)]
    runs = track_people(blobs_of([*child, *[scene()] * 10, *adult]))
    assert [len(run) for run in runs] == [120, 60]


def test_frames_without_people() -> None:
    assert track_people(blobs_of([scene() for _ in range(5)])) == []
    assert track_people([]) == []


def test_gapless() -> None:
    assert [range(10)[s] for s in gapless([0, 1, 5, 10, 11])] == [range(3), range(3, 5)]
    assert gapless([]) == []
