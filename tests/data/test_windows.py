"""Windows of frames."""

import re

import numpy as np
import pytest

from hstl_fast.data import WINDOWS, Window, choose_frames
from hstl_fast.data.windows import check_window


def chosen(num_frames: int, window: Window, times: int = 200) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [choose_frames(num_frames, window, generator) for _ in range(times)]


def test_consecutive_frames_begin_anywhere() -> None:
    found = chosen(33, Window(30, 30))
    assert {frames[0] for frames in found} == {0, 1, 2, 3}
    assert all((np.diff(frames) == 1).all() and len(frames) == 30 for frames in found)


def test_gait3d_skips_four_of_34_in_order() -> None:
    assert WINDOWS["gait3d"] == Window(30, 34)
    found = chosen(40, WINDOWS["gait3d"])
    assert all(len(frames) == 30 and (np.diff(frames) > 0).all() and np.ptp(frames) < 34 for frames in found)
    assert {int(frames.min()) for frames in found} >= {0, 1, 2, 3, 4, 5, 6}
    assert max(int(frames.max()) for frames in found) == 39


@pytest.mark.parametrize("num_frames", [1, 2, 7, 29])
@pytest.mark.parametrize("window", [Window(30, 30), Window(30, 34)])
def test_short_sequences_are_repeated(num_frames: int, window: Window) -> None:
    repeated = np.tile(np.arange(num_frames), -(-window.stretch // num_frames))
    for frames in chosen(num_frames, window, times=20):
        stretches = np.lib.stride_tricks.sliding_window_view(repeated, window.stretch)
        assert any(is_within(frames.tolist(), stretch.tolist()) for stretch in stretches)


def is_within(frames: list[int], stretch: list[int]) -> bool:
    """Whether the frames are a subsequence of the stretch."""
    rest = iter(stretch)
    return all(frame in rest for frame in frames)


def test_a_sequence_as_long_as_the_stretch_has_one_window() -> None:
    assert all((frames == np.arange(30)).all() for frames in chosen(30, Window(30, 30), times=5))


@pytest.mark.parametrize("window", [Window(0, 30), Window(31, 30), Window(-1, -1)])
def test_windows_that_cannot_be(window: Window) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {window.frames} frames in a stretch of {window.stretch}")):
        check_window(window)


def test_no_frames() -> None:
    with pytest.raises(ValueError, match="num_frames must be at least 1; got 0"):
        choose_frames(0, Window(), np.random.default_rng(0))
