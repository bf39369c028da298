"""Frames between two threads: in order, the last few, and what is dropped is counted."""

import threading

import numpy as np

from hstl_fast.recognition.live.events import Frame
from hstl_fast.recognition.live.newest import Newest, wait_until


def frame(number: int) -> Frame:
    return Frame(number, 0.0, 0.0, np.zeros((1, 1, 3), np.uint8))


def test_the_last_frames_come_in_order() -> None:
    newest = Newest(capacity=3)
    for number in range(5):
        newest.put(frame(number))
    newest.end()
    assert not newest.ended
    assert [taken.number for _ in range(3) if (taken := newest.take())] == [2, 3, 4]
    assert (newest.dropped, newest.ended, newest.error) == (2, True, None)
    assert newest.take(60) is None


def test_a_wait_ends_with_the_frame_that_comes() -> None:
    newest, taken = Newest(), []
    thread = threading.Thread(target=lambda: taken.append(newest.take(60)))
    thread.start()
    newest.put(frame(7))
    thread.join(20)
    assert taken[0].number == 7


def test_a_wait_ends_with_the_frames() -> None:
    newest, taken = Newest(), []
    thread = threading.Thread(target=lambda: taken.append(newest.take(60)))
    thread.start()
    newest.end(ValueError("broken"))
    thread.join(20)
    assert taken == [None]
    assert str(newest.error) == "broken"


def test_waiting_ends_when_it_is_stopped() -> None:
    asked = iter([False, False, True])
    wait_until(float("inf"), lambda: next(asked))
