"""Rendered walkers: silhouettes of articulated bodies, for machines without data. Needs numpy only.

They show that a system works and how fast it is; recognition rates on them say nothing about people."""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import NDArray

from hstl_fast.names import one_of
from hstl_fast.silhouettes._walker_body import CONDITIONS, recording
from hstl_fast.silhouettes._walker_gait import figure
from hstl_fast.silhouettes._walker_raster import coverage, distance_field

SIZE = 64


def render(
    identity: int,
    *,
    view: float = 90.0,
    condition: str = "nm",
    take: int = 1,
    frames: int = 30,
    noise: float = 0.0,
    seed: int = 2023,
) -> NDArray[np.uint8]:
    """One person's walk as aligned silhouettes `[frames, 64, 64]`, 0 background to 255 body, at 25 frames a second.

    An articulated body (ellipsoids, round cones, elliptic sections) moves by mean human joint angles, seen by a camera
    at chest height, and is aligned as `hstl_fast.silhouettes.align` does: the body fills the 64 rows, the median column
    of its mass is column 32. The same arguments give the same pixels on every machine.

    identity: 0 or more; sets proportions, posture, clothes and gait (26 to 31 frames per cycle).
    view: degrees, 0 (towards the camera) to 180 (away from it), 90 walks to the right.
    condition: "nm" (normal), "bg" (with a bag) or "cl" (in a coat).
    take: number of the recording, 1 or more; other phase, pace, amplitudes, side of the bag. Takes with the same number
    seen from several views are the same walk.
    noise: 0 (clean) to 1, faults of a segmentation: ragged edges, holes, missing parts, spurious blobs.
    seed: names the population.

    Raises ValueError for a value out of range, TypeError for another type.
    """
    identity = _whole("identity", identity, least=0)
    take, frames = _whole("take", take, least=1), _whole("frames", frames, least=1)
    seed = _whole("seed", seed, least=0)
    view, noise = _real("view", view, 0, 180), _real("noise", noise, 0, 1)
    walker = recording(identity, one_of(condition, CONDITIONS, "condition"), take, seed)
    return _centred(coverage(distance_field(figure(walker, frames), view)))


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _real(name: str, value: float, low: float, high: float) -> float:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name} must be in {low}..{high}, got {number:g}")
    return number


def _centred(wide: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut `[T, 64, w]` to 64 columns, the median column of each frame's mass at column 32."""
    mass = np.cumsum(wide.sum(axis=1, dtype=np.int64), axis=1)
    median = (2 * mass < mass[:, -1:]).sum(axis=1)
    columns = median[:, None, None] + np.arange(SIZE) + SIZE - SIZE // 2
    padded = np.pad(wide, ((0, 0), (0, 0), (SIZE, SIZE)))
    return np.take_along_axis(padded, columns, axis=2)
