"""Windows: the frames of a sequence that a training step sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Window(NamedTuple):
    """A choice of frames: `frames` of a random stretch of `stretch` consecutive ones, in order.

    Attributes:
        frames: Frames that are chosen.
        stretch: Consecutive frames among which they are chosen; as many as `frames` for consecutive frames.
    """

    frames: int = 30
    stretch: int = 30


# The windows of the released configurations; `gait3d` skips 4 of 34 frames.
WINDOWS = {name: Window(30, 34 if name == "gait3d" else 30) for name in ("casia-b", "oumvlp", "grew", "gait3d")}


def check_window(window: Window) -> None:
    """Check a window.

    Args:
        window: The window.

    Raises:
        ValueError: It has no frames, or more of them than its stretch.
    """
    if not 1 <= window.frames <= window.stretch:
        raise ValueError(
            f"window must have 1 or more frames in a stretch of at least as many; "
            f"got {window.frames} frames in a stretch of {window.stretch}"
        )


def choose_frames(num_frames: int, window: Window, generator: np.random.Generator) -> NDArray[np.intp]:
    """Choose the frames of a sequence at random.

    A sequence shorter than the stretch is repeated as a whole until it is long enough; the stretch begins at any frame
    at which it fits in, each with the same probability.

    Args:
        num_frames: Frames of the sequence, 1 or more.
        window: The frames to choose.
        generator: The source of random numbers.

    Returns:
        Numbers `[window.frames]` of frames, 0 to `num_frames - 1`; increasing unless the sequence is repeated.

    Raises:
        ValueError: The sequence has no frames.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1; got {num_frames}")
    repetitions = -(-window.stretch // num_frames)
    start = generator.integers(repetitions * num_frames - window.stretch + 1)
    chosen = np.arange(window.frames)
    if window.stretch > window.frames:
        chosen = np.sort(generator.permutation(window.stretch)[: window.frames])
    return np.asarray((start + chosen) % num_frames)
