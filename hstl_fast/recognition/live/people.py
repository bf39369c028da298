"""People in the frames of a camera: the moving bodies of every frame."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.errors import GalleryWarning
from hstl_fast.recognition.live.background import RunningBackground
from hstl_fast.recognition.live.events import Frame
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.blobs import Blob, find_blobs
from hstl_fast.silhouettes.video.extraction import box_in_frame
from hstl_fast.silhouettes.video.foreground import Foreground
from hstl_fast.silhouettes.video.registration import Motion
from hstl_fast.silhouettes.video.segmenters import open_segmenter

Box = tuple[int, int, int, int]
# Frames of more pixels are halved, or divided by three and so on, before people are looked for.
MOST_PIXELS = 1_000_000
# The least height in reduced frames.
LEAST_HEIGHT = 16


class Sight(NamedTuple):
    """The bodies of a frame.

    Attributes:
        blobs: Moving bodies, in pixels of the reduced frame.
        motion: How the camera had moved, or None.
    """

    blobs: list[Blob]
    motion: Motion | None


class People:
    """Finds moving bodies in the frames of one camera.

    Frames of more than a million pixels are reduced first, since a silhouette has 64 rows. Where frames come with
    another size, since the camera was turned or set anew, all that was learnt of the former ones is forgotten.

    Args:
        segmenter: `background` or `onnx:MODEL.onnx`, as for `hstl_fast.silhouettes.video.segmenters.open_segmenter`.
        min_height: Least height of a body, in pixels of the frames, 16 or more.
        source: The name of the camera, for warnings.
        waits: Whether a frame waits while a background is learnt (see `RunningBackground`).
    """

    def __init__(self, segmenter: str, min_height: int, source: str, waits: bool) -> None:
        self._segmenter = open_segmenter(segmenter)
        self._min_height, self._source, self._waits = min_height, source, waits
        self._background: RunningBackground | None = None
        self._shape: tuple[int, ...] | None = None
        self._reduction = 1

    @property
    def camera_may_move(self) -> bool:
        """Whether people are found while the camera moves; they are then found while they stand, too."""
        return self._segmenter.camera_may_move

    def has_other_size(self, frame: Frame) -> bool:
        """Say whether a frame has another size than those before."""
        return self._shape is not None and frame.image.shape != self._shape

    def see(self, frame: Frame, index: int) -> Sight:
        """Find the bodies in a frame; none in the first two seconds, in which the background is learnt.

        Args:
            frame: The frame, later than the ones before.
            index: The number that its blobs get as their frame.

        Returns:
            The bodies.
        """
        if self.has_other_size(frame):
            assert self._shape is not None
            sizes = f"{_size(self._shape)} until now, {_size(frame.image.shape)} from frame {frame.number} on"
            warnings.warn(f"{self._source}: {sizes}; people are followed anew", GalleryWarning, stacklevel=2)
            self.close()
            self._shape = None
        if self._shape is None:
            self._begin(frame.image.shape)
        seen = self._foreground(self._reduced(frame.image), frame.seconds)
        if seen is None:
            return Sight([], None)
        return Sight(find_blobs(seen.mask, index, self._least_height), seen.motion)

    def box(self, box: Box, motion: Motion | None) -> Box:
        """Return the box (x, y, width, height) of a blob in pixels of its frame."""
        x, y, width, height = (self._reduction * each for each in box_in_frame(box, motion))
        return x, y, width, height

    def close(self) -> None:
        """End what runs beside."""
        if self._background is not None:
            self._background.close()

    def _begin(self, shape: tuple[int, ...]) -> None:
        self._shape, self._reduction = shape, 1
        while shape[0] * shape[1] > MOST_PIXELS * self._reduction**2:
            self._reduction += 1
        self._least_height = max(LEAST_HEIGHT, self._min_height // self._reduction)
        if self._segmenter.learns:
            self._background = RunningBackground(self._least_height, self._waits)

    def _reduced(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._reduction == 1:
            return image
        cv2 = opencv()
        size = image.shape[1] // self._reduction, image.shape[0] // self._reduction
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))

    def _foreground(self, image: NDArray[np.uint8], seconds: float) -> Foreground | None:
        if self._background is None:
            return self._segmenter.foreground(image)
        return self._background.foreground(image, seconds)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
