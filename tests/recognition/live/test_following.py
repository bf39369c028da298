"""Boxes that are followed from frame to frame by their overlap."""

import numpy as np

from hstl_fast.recognition.live.following import Bodies, Following, overlapping
from hstl_fast.recognition.live.windows import Place
from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.tracking import MAX_GAP


def blob(frame: int, *box: int) -> Blob:
    x, y, width, height = box
    mask = np.ones((height, width), bool)
    return Blob(frame, (x, y, width, height), mask.size, False, True, np.packbits(mask))


def test_a_box_belongs_to_the_track_that_it_overlaps_most() -> None:
    boxes = {1: (0, 0, 20, 50), 2: (12, 0, 20, 50), 3: (200, 0, 20, 50)}
    assert overlapping(boxes, [(10, 0, 20, 50), (60, 0, 20, 50)]) == {2: (10, 0, 20, 50)}
    assert overlapping(boxes, [(10, 0, 20, 50), (2, 0, 20, 50)]) == {1: (2, 0, 20, 50), 2: (10, 0, 20, 50)}
    assert overlapping(boxes, []) == {}
    assert overlapping({}, [(0, 0, 20, 50)]) == {}


def test_people_are_followed_from_where_they_were_seen_last() -> None:
    following = Following()
    frames = [Bodies(t, [blob(t, 4 * t, 0, 20, 50), blob(t, 300, 0, 20, 50)]) for t in range(5, 10)]
    assert following.begin({7: Place(6, (24, 0, 20, 50))}, frames) == {7: (36, 0, 20, 50)}
    assert following.next([blob(10, 40, 0, 20, 50)]) == {7: (40, 0, 20, 50)}


def test_somebody_who_is_hidden_for_a_frame_is_found_again() -> None:
    following = Following()
    following.begin({1: Place(0, (0, 0, 20, 50))}, [Bodies(0, [blob(0, 0, 0, 20, 50)])])
    assert following.next([]) == {}
    assert following.next([blob(2, 6, 0, 20, 50)]) == {1: (6, 0, 20, 50)}


def test_tracks_that_are_not_named_any_more_are_not_followed() -> None:
    following = Following()
    following.begin({1: Place(0, (0, 0, 20, 50))}, [Bodies(0, [])])
    assert following.begin({}, [Bodies(1, [blob(1, 0, 0, 20, 50)])]) == {}
    assert following.next([blob(2, 0, 0, 20, 50)]) == {}


def test_nobody_gets_the_name_of_the_one_whom_he_meets() -> None:
    following = Following()
    following.begin({1: Place(0, (0, 0, 20, 50)), 2: Place(0, (22, 0, 20, 50))}, [Bodies(0, [])])
    assert following.next([blob(1, 2, 0, 38, 50)]) == {}
    assert following.next([blob(2, 0, 0, 20, 50), blob(2, 22, 0, 20, 50)]) == {}


def test_somebody_who_comes_out_of_a_body_has_no_name_and_takes_it_from_the_other() -> None:
    following = Following()
    following.begin({1: Place(0, (0, 0, 38, 50)), 2: Place(0, (300, 0, 20, 50))}, [Bodies(0, [])])
    parted = [blob(1, 0, 0, 20, 50), blob(1, 22, 0, 20, 50), blob(1, 302, 0, 20, 50)]
    assert following.next(parted) == {2: (302, 0, 20, 50)}


def test_somebody_who_meets_a_stranger_has_no_name_afterwards() -> None:
    following, stranger = Following(), blob(0, 22, 0, 20, 50)
    following.begin({1: Place(0, (0, 0, 20, 50))}, [Bodies(0, [blob(0, 0, 0, 20, 50), stranger])])
    assert following.next([blob(1, 2, 0, 38, 50)]) == {}


def test_somebody_who_passes_another_without_touching_him_keeps_his_name() -> None:
    following = Following()
    following.begin({1: Place(0, (0, 0, 20, 50)), 2: Place(0, (8, 10, 20, 50))}, [Bodies(0, [])])
    assert following.next([blob(1, 2, 0, 20, 50), blob(1, 6, 10, 20, 50)]) == {1: (2, 0, 20, 50), 2: (6, 10, 20, 50)}


def test_the_place_of_somebody_who_has_gone_is_free_for_others() -> None:
    following = Following()
    following.begin({1: Place(0, (0, 0, 20, 50))}, [Bodies(0, [])])
    for _ in range(MAX_GAP + 1):
        assert following.next([]) == {}
    assert following.next([blob(9, 0, 0, 20, 50)]) == {}
