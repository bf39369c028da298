"""Foreground masks of footage from a fixed camera: the pixels that move."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.extras import opencv

# The background model learns from at most so many frames and bytes.
TRAINING_FRAMES = 200
TRAINING_BYTES = 512 * 2**20
# A pixel is foreground from this squared distance to the background on, in variances of the pixel.
MIN_CONTRAST = 25.0
# A pixel at least this fraction as bright as the background and of its colour is a shadow.
SHADOW_DARKEST = 0.5
# The background of a pixel is its most frequent colours that together fill this share of the time.
BACKGROUND_SHARE = 0.5
# OpenCV marks foreground by this value, and shadows by a smaller one.
FOREGROUND = 255


class Footage:
    """A video file as BGR frames `[H, W, 3]` uint8.

    Args:
        path: The file.

    Attributes:
        path: The file.
        fps: Frames a second, as the header of the file says.
        num_frames: Number of frames as the header says, until the footage has been read to its end; then the number of
            frames that decoded.
        frame_bytes: Size of one frame in memory.

    Raises:
        SilhouetteError: The file cannot be opened, or no frame decodes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        cv2 = opencv()
        self.path = Path(path)
        if not self.path.is_file():
            got = "a folder" if self.path.is_dir() else "nothing there"
            raise SilhouetteError(f"{self.path}: expected a video file, got {got}")
        capture = self._open()
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))
        self.num_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        ok, first = capture.read()
        if not ok:
            raise SilhouetteError(f"{self.path}: expected a video with frames, got none that decodes")
        self.frame_bytes = int(first.nbytes)
        if self.num_frames == 0:
            self.num_frames = 1
            while capture.grab():
                self.num_frames += 1
        capture.release()

    def frames(self, wanted: Container[int] | None = None) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Yield the index of every frame and the frame, or None instead of a frame that is not in `wanted`."""
        capture = self._open()
        try:
            count = 0
            while capture.grab():
                ok, frame = capture.retrieve() if wanted is None or count in wanted else (True, None)
                if not ok:
                    break
                yield count, frame
                count += 1
            self.num_frames = count
        finally:
            capture.release()

    def _open(self) -> Any:
        capture = opencv().VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SilhouetteError(f"{self.path}: expected a video that OpenCV can open, got a file it cannot")
        return capture


class BackgroundModel:
    """A Gaussian mixture of OpenCV (MOG2), learnt from frames of the whole footage before the first mask is computed.

    Every training frame counts the same, and neighbours are learnt far apart, so that a person who stands still for a
    while is not learnt as background and early frames are as good as late ones. The model is then frozen: the same
    frame always gives the same mask.
    """

    def __init__(self, frames: list[NDArray[np.uint8]]) -> None:
        self._mixture = opencv().createBackgroundSubtractorMOG2(
            history=2 * len(frames), varThreshold=MIN_CONTRAST, detectShadows=True
        )
        self._mixture.setShadowThreshold(SHADOW_DARKEST)
        self._mixture.setBackgroundRatio(BACKGROUND_SHARE)
        for seen, i in enumerate(_interleaved(len(frames)), start=1):
            self._mixture.apply(frames[i], learningRate=1 / seen)

    def mask(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Compute the foreground, bool `[H, W]`, of a frame `[H, W, 3]`: no shadows, specks, lines under three rows."""
        cv2 = opencv()
        raw = self._mixture.apply(frame, learningRate=0)
        moving = cv2.medianBlur((raw == FOREGROUND).astype(np.uint8), 3)
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((3, 1), np.uint8))
        closed = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((5, 1), np.uint8))
        return np.asarray(closed > 0)


def training_indices(num_frames: int, frame_bytes: int) -> NDArray[np.intp]:
    """Choose evenly spread frames for the background model: at most TRAINING_FRAMES, and TRAINING_BYTES together."""
    count = min(num_frames, TRAINING_FRAMES, max(1, TRAINING_BYTES // frame_bytes))
    return np.unique(np.linspace(0, num_frames - 1, count).round().astype(np.intp))


def _interleaved(count: int) -> list[int]:
    """The numbers 0..count-1 in an order in which neighbours are far apart."""
    stride = max(1, int(count**0.5))
    return [i for start in range(stride) for i in range(start, count, stride)]
