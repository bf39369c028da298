"""Registration: how a camera moved between a reference picture and a frame, measured by features of the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv

Matrix = NDArray[np.float64]
# Contrast is taken relative to its surroundings of this many pixels, so that light does not matter.
SURROUNDINGS = 12
# Corners of the background that are followed, and the share of the picture's width between two of them.
CORNERS, CORNER_QUALITY, CORNER_DISTANCE = 300, 0.02, 0.02
# Windows of the optical flow, in pixels, and its pyramid's levels.
FLOW_WINDOW, FLOW_LEVELS = 21, 3
# Corners agree with a motion that puts them within this many pixels; at least this share and number of them must.
AGREEMENT, AGREEING_SHARE, AGREEING = 1.0, 0.35, 12
# A motion is used up to this turn and this scale; others are mistakes.
LARGEST_TURN, LARGEST_SCALE = 0.1, 1.1
# Turn and scale are measured only where the translation leaves more than this many pixels, at the corners' median.
TRANSLATION_ERROR = 0.3


@dataclass(frozen=True)
class Motion:
    """How the background of a frame lies against the reference.

    Attributes:
        matrix: Affine map `[2, 3]` of the reference's pixels to those of the frame.
        shift: The largest displacement of a corner of the picture, in pixels.
    """

    matrix: Matrix
    shift: float


class Reference:
    """A picture against which the motion of others is measured.

    Args:
        picture: BGR `[H, W, 3]` uint8.
        background: Bool `[H, W]`, where features are looked for; None: everywhere.
        corners: Most features to follow.

    Attributes:
        num_corners: Number of features that it has.
    """

    def __init__(
        self, picture: NDArray[np.uint8], background: NDArray[np.bool_] | None = None, corners: int = CORNERS
    ) -> None:
        cv2 = opencv()
        self._size = picture.shape[:2]
        self._contrast = local_contrast(picture)
        found = cv2.goodFeaturesToTrack(
            self._contrast,
            corners,
            CORNER_QUALITY,
            max(5.0, CORNER_DISTANCE * self._size[1]),
            mask=None if background is None else background.astype(np.uint8),
        )
        self._corners = np.zeros((0, 1, 2), np.float32) if found is None else found
        self.num_corners = len(self._corners)

    def motion_of(self, picture: NDArray[np.uint8]) -> Motion | None:
        """Measure the motion of a picture `[H, W, 3]` against the reference; None where too few features agree."""
        if self.num_corners < AGREEING:
            return None
        cv2 = opencv()
        there, found, _ = cv2.calcOpticalFlowPyrLK(
            self._contrast,
            local_contrast(picture),
            self._corners,
            None,
            winSize=(FLOW_WINDOW, FLOW_WINDOW),
            maxLevel=FLOW_LEVELS,
        )
        known = found.ravel() > 0
        before, after = self._corners[known, 0].astype(np.float64), there[known, 0].astype(np.float64)
        if len(before) < AGREEING:
            return None
        matrix = _translation(before, after)
        if matrix is None:
            matrix = _similarity(cv2, before, after)
        if matrix is None:
            return None
        rows, columns = self._size
        ends = np.array([[0, 0, 1], [columns, 0, 1], [0, rows, 1], [columns, rows, 1]], np.float64)
        moved = ends @ matrix.T - ends[:, :2]
        return Motion(matrix, float(np.hypot(*moved.T).max()))


def local_contrast(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the contrast `[H, W]` uint8 of a picture relative to its surroundings, which light hardly changes."""
    cv2 = opencv()
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    size = (2 * SURROUNDINGS + 1, 2 * SURROUNDINGS + 1)
    mean = cv2.blur(grey, size)
    deviation = np.sqrt(np.maximum(cv2.blur(grey * grey, size) - mean * mean, 0)) + 4
    return np.asarray((128 + 40 * (grey - mean) / deviation).clip(0, 255), np.uint8)


def registered(picture: NDArray[np.uint8], motion: Motion) -> NDArray[np.uint8]:
    """Shift a picture `[H, W, 3]` so that its background lies where the reference's does."""
    cv2 = opencv()
    rows, columns = picture.shape[:2]
    return np.asarray(
        cv2.warpAffine(
            picture,
            motion.matrix,
            (columns, rows),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def _translation(before: Matrix, after: Matrix) -> Matrix | None:
    """The shift that most features agree on, or None where it is no mere shift or too few agree."""
    flow = after - before
    shift = np.median(flow, axis=0)
    for _ in range(3):
        near = np.hypot(*(flow - shift).T) <= AGREEMENT
        if not near.any():
            return None
        shift = flow[near].mean(axis=0)
    near = np.hypot(*(flow - shift).T) <= AGREEMENT
    if near.sum() < AGREEING or near.mean() < AGREEING_SHARE:
        return None
    if np.median(np.hypot(*(flow[near] - shift).T)) > TRANSLATION_ERROR:
        return None
    return np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])


def _similarity(cv2: Any, before: Matrix, after: Matrix) -> Matrix | None:
    """The shift, turn and scale that most features agree on."""
    matrix, agreeing = cv2.estimateAffinePartial2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=AGREEMENT, maxIters=500, confidence=0.99
    )
    if matrix is None or agreeing.sum() < AGREEING or agreeing.mean() < AGREEING_SHARE:
        return None
    scale, turn = float(np.hypot(matrix[0, 0], matrix[1, 0])), float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE or abs(turn) > LARGEST_TURN:
        return None
    return np.asarray(matrix, np.float64)
