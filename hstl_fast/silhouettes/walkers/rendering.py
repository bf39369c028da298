"""Rendering: the walk of a person as silhouettes, and whole populations laid out like CASIA-B."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.names import one_of
from hstl_fast.silhouettes.align import align_bright_rows
from hstl_fast.silhouettes.walkers.body import CONDITIONS, recording
from hstl_fast.silhouettes.walkers.gait import figure
from hstl_fast.silhouettes.walkers.noise import spoil
from hstl_fast.silhouettes.walkers.raster import coverage, distance_field

SIZE = 64
CASIA_B_VIEWS = tuple(range(0, 181, 18))
CASIA_B_TAKES = (*(f"nm-{take:02d}" for take in range(1, 7)), "bg-01", "bg-02", "cl-01", "cl-02")


@dataclass(frozen=True, eq=False)
class Recording:
    """One clip of a population.

    Attributes:
        identity: Number of the person.
        take: A label such as `nm-01`: a condition and a number.
        view: The direction of the camera in degrees.
        silhouettes: Aligned silhouettes `[frames, 64, 64]` uint8.
    """

    identity: int
    take: str
    view: float
    silhouettes: NDArray[np.uint8]

    @property
    def name(self) -> str:
        """The name `<identity>/<take>/<view>`, as the folders of CASIA-B are called: `007/nm-01/090`."""
        return f"{self.identity:03d}/{self.take}/{self.view:03g}"


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
    """Render the walk of one person at 25 frames a second.

    An articulated body (ellipsoids, round cones, elliptic sections) moves by mean human joint angles, seen by a camera
    at chest height, and is aligned as `hstl_fast.silhouettes.align` does: the body fills the 64 rows, the median column
    of its mass is column 32. The same arguments give the same pixels on every machine, and a longer clip begins with
    the frames of a shorter one.

    Args:
        identity: Number of the person, 0 or more; it determines proportions, posture, clothes and gait (24 to 33 frames
            per cycle of two steps).
        view: Direction in degrees, from 0 (towards the camera) to 180 (away from it); at 90 the walk goes to the right.
        condition: `nm` (normal), `bg` (with a bag) or `cl` (in a coat).
        take: Number of the recording, 1 or more; it determines phase, pace, amplitudes and the hand for the bag. The
            same take from several views is the same walk.
        frames: Number of frames, 1 or more.
        noise: Amount of segmentation faults, from 0 (none) to 1: ragged edges, holes, lost feet, blobs beside the body.
        seed: Number of the population, 0 or more.

    Returns:
        Aligned silhouettes `[frames, 64, 64]` uint8, 0 background to 255 body.

    Raises:
        ValueError: A value is out of range.
        TypeError: A value is of another type.
    """
    identity, seed = _whole("identity", identity, least=0), _whole("seed", seed, least=0)
    take, frames = _whole("take", take, least=1), _whole("frames", frames, least=1)
    view, noise = _real("view", view, 0, 180), _real("noise", noise, 0, 1)
    condition = one_of(condition, CONDITIONS, "condition")
    field = distance_field(figure(recording(identity, condition, take, seed), frames), view)
    if noise == 0:
        return _centred(coverage(field))
    key = seed, identity, CONDITIONS.index(condition), take, round(1000 * view)
    return np.stack([align_bright_rows(frame) for frame in coverage(spoil(field, noise, key))])


def recordings(
    identities: Iterable[int],
    *,
    views: Iterable[float] = CASIA_B_VIEWS,
    takes: Iterable[str] = CASIA_B_TAKES,
    frames: int = 30,
    noise: float = 0.0,
    seed: int = 2023,
) -> Iterator[Recording]:
    """Render every identity in every take from every view.

    All arguments are checked at the call; a clip is rendered when it is asked for.

    Args:
        identities: Numbers of the people, 0 or more.
        views: Directions in degrees; by default the 11 views of CASIA-B.
        takes: Labels of a condition and a number each; by default those of CASIA-B, nm-01..06, bg-01..02 and cl-01..02.
        frames: Number of frames of each clip, 1 or more.
        noise: Amount of segmentation faults, from 0 (none) to 1, as in `render`.
        seed: Number of the population, 0 or more.

    Returns:
        An iterator over the clips: by identity, then take, then view.

    Raises:
        ValueError: A value is out of range, or a take is not a condition and a number.
        TypeError: A value is of another type.
    """
    people = [_whole("identity", identity, least=0) for identity in identities]
    numbered = [(label, *_condition_and_number(label)) for label in takes]
    angles = [_real("view", view, 0, 180) for view in views]
    frames, seed = _whole("frames", frames, least=1), _whole("seed", seed, least=0)
    noise = _real("noise", noise, 0, 1)
    return (
        Recording(
            identity,
            label,
            view,
            render(identity, view=view, condition=condition, take=take, frames=frames, noise=noise, seed=seed),
        )
        for identity in people
        for label, condition, take in numbered
        for view in angles
    )


def _condition_and_number(label: str) -> tuple[str, int]:
    parts = re.fullmatch(r"(\w+)-(\d+)", label)
    if parts is None:
        raise ValueError(f"takes must be a condition and a number each, such as nm-01, got {label!r}")
    return one_of(parts[1], CONDITIONS, "the condition of a take"), _whole("take", int(parts[2]), least=1)


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
        raise ValueError(f"{name} must be in {low:g}..{high:g}, got {number:g}")
    return number


def _centred(wide: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut `[T, 64, w]` to 64 columns, so that the median column of the mass of each frame is column 32."""
    mass = np.cumsum(wide.sum(axis=1, dtype=np.int64), axis=1)
    median = (2 * mass < mass[:, -1:]).sum(axis=1)
    columns = median[:, None, None] + np.arange(SIZE) + SIZE - SIZE // 2
    padded = np.pad(wide, ((0, 0), (0, 0), (SIZE, SIZE)))
    return np.take_along_axis(padded, columns, axis=2)
