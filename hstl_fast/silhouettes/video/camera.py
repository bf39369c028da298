"""The camera: whether it stands still, trembles or turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.registration import Motion, Reference

Picture = NDArray[np.uint8]
# Motion is looked for in pictures of at most this width and on at most so many frames.
LOOKING_WIDTH, LOOKING_FRAMES = 384, 60
# The camera trembles when one frame in ten is off by more than this many pixels.
TREMBLE = 0.25
# The camera moves on when less than this share of the frames lies within this share of the width of the middle one, and
# this share of the neighbouring frames are off by this many pixels.
STILL_THERE, FARTHEST, MOVING_SHARE, MOVING = 0.9, 0.15, 0.1, 0.3
# With more frames than this off their place nothing is registered.
REGISTRABLE = 0.7


@dataclass(frozen=True)
class Camera:
    """How the camera behaves.

    Attributes:
        trembles: Whether frames are to be registered.
        moves: Pixels from frame to frame by which it turns or travels, 0 for a fixed camera.
        tremble: Pixels by which nine frames in ten are off the middle one at most.
    """

    trembles: bool
    moves: float
    tremble: float


def small(picture: Picture) -> Picture:
    """Reduce a picture to the size in which motion is looked for."""
    cv2 = opencv()
    width = picture.shape[1]
    if width <= LOOKING_WIDTH:
        return picture
    scale = LOOKING_WIDTH / width
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def judge_camera(samples: Sequence[Picture], pairs: Sequence[tuple[Picture, Picture]]) -> Camera:
    """Judge the camera.

    Args:
        samples: Frames of the whole video `[H, W, 3]`.
        pairs: Neighbouring frames, reduced by `small`.

    Returns:
        Whether it trembles or moves. A camera of which no motion can be measured, as in front of a bare wall, stands
        still.
    """
    picked = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, LOOKING_FRAMES).round().astype(int))]
    scale = picked[0].shape[1] / small(picked[0]).shape[1]
    reference = Reference(small(picked[len(picked) // 2]))
    motions = [reference.motion_of(small(picture)) for picture in picked]
    shifts = [scale * motion.shift for motion in motions if motion is not None]
    near = sum(shift <= FARTHEST * picked[0].shape[1] for shift in shifts) / len(picked)
    steps = [step for step in _steps(pairs, scale) if step > MOVING]
    moves = near < STILL_THERE and len(steps) >= max(1, MOVING_SHARE * len(pairs))
    tremble = float(np.percentile(shifts, 90)) if shifts else 0.0
    return Camera(
        trembles=tremble > TREMBLE and near >= REGISTRABLE,
        moves=float(np.median(steps)) if moves else 0.0,
        tremble=tremble,
    )


def _steps(pairs: Sequence[tuple[Picture, Picture]], scale: float) -> list[float]:
    motions: list[Motion | None] = [Reference(before).motion_of(after) for before, after in pairs]
    return [scale * motion.shift for motion in motions if motion is not None]
