"""Frames that are collected one by one into a sequence: aligned as they come, and judged when all are there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.align import align_body
from hstl_fast.silhouettes.components import BODY_THRESHOLD, find_body
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.silhouettes.usable import (
    FILLED,
    LEAST_MASS,
    NO_BODY,
    faults_of_area,
    faults_of_mass,
    is_body,
    looks_aligned,
    mass,
)
from hstl_fast.silhouettes.values import largest, level, refuse_ambiguous, scaled

SIZE = 64
NARROW = 44
ALIGNED_SIZES = ((SIZE, SIZE), (SIZE, NARROW))
# A sequence with fewer usable frames is returned, and it is said.
FEW = 5

FEW_FRAMES = f"fewer than {FEW} usable frames"
NOT_ALIGNED = "not aligned, aligned here"
CUT = "cut to the limit of frames"


class Reading(NamedTuple):
    """A sequence, and what was left out of it.

    Attributes:
        silhouettes: Aligned silhouettes `[T, 64, 64]` uint8.
        left_out: The frames and files that were left out.
    """

    silhouettes: NDArray[np.uint8]
    left_out: tuple[LeftOut, ...] = ()


class _Candidate(NamedTuple):
    """A frame with a body in it: aligned, or as it came where its size is that of aligned frames."""

    where: str
    pixels: NDArray[np.generic]
    largest: float
    area: float
    is_aligned_here: bool


class Collector:
    """A sequence that grows frame by frame and holds 64 x 64 pixels of each.

    The range of the whole sequence decides which value means the body (`hstl_fast.silhouettes.values`). Until all
    frames are there, each is taken by its own range; at the end those of lower ranges show nothing bright enough.

    Args:
        name: What errors call the sequence.
        limit: The number of frames with a body that are wanted, or None.
    """

    def __init__(self, name: str, limit: int | None = None) -> None:
        self.name = name
        self.limit = limit
        self.left_out: list[LeftOut] = []
        self._frames: list[_Candidate] = []
        self._largest = 0.0

    @property
    def is_full(self) -> bool:
        """Whether as many frames as are wanted are there."""
        return self.limit is not None and len(self._frames) >= self.limit

    def add(self, pixels: NDArray[np.generic], where: str) -> None:
        """Add a frame.

        Args:
            pixels: `[H, W]`, values as `to_uint8` takes them.
            where: The name of the frame.

        Raises:
            SilhouetteError: The dtype or the range is refused.
        """
        high = largest(pixels, where)
        self._largest = max(self._largest, high)
        is_small = pixels.shape in ALIGNED_SIZES
        bright = scaled(pixels, high)
        if is_small and mass(bright[None])[0] >= LEAST_MASS:
            self._frames.append(_Candidate(where, pixels, high, np.nan, is_aligned_here=False))
            return
        body = None if is_small else find_body(bright)
        if body is None or not is_body(body):
            self.left_out.append(LeftOut(where, NO_BODY))
            return
        self._frames.append(_Candidate(where, align_body(bright, body), high, body.area, is_aligned_here=True))

    def reading(self, count: int, is_cut: bool = False) -> Reading:
        """Judge the frames and finish the sequence.

        Args:
            count: The number of frames that the sequence has, including any beyond the limit.
            is_cut: Whether frames beyond the limit were not looked at.

        Returns:
            The sequence.

        Raises:
            SilhouetteError: No frame is usable, or the range of the values is ambiguous.
        """
        refuse_ambiguous(self._largest, self.name)
        self._leave_out({i: NO_BODY for i, f in enumerate(self._frames) if level(f.largest) < level(self._largest)})
        if all(not frame.is_aligned_here for frame in self._frames):
            stack = [_wide(scaled(frame.pixels, self._largest)) for frame in self._frames]
            places = [frame.where for frame in self._frames]
            shown = np.stack(stack) if stack else np.zeros((0, SIZE, SIZE), np.uint8)
            judged = judge_aligned(shown, places, self.name)
        else:
            judged = self._judge_aligned_here()
        left_out = [*self.left_out, *judged.left_out]
        return finish(judged.silhouettes, left_out, self.name, count, is_cut, self._largest)

    def _judge_aligned_here(self) -> Reading:
        frames = [frame if frame.is_aligned_here else self._aligned(frame) for frame in self._frames]
        self._frames = [frame for frame in frames if frame is not None]
        self._leave_out(faults_of_area(np.array([frame.area for frame in self._frames], np.float64)))
        shown = [np.asarray(frame.pixels, np.uint8) for frame in self._frames]
        stack = np.stack(shown) if shown else np.zeros((0, SIZE, SIZE), np.uint8)
        return _without(stack, faults_of_mass(stack), [frame.where for frame in self._frames], "")

    def _aligned(self, frame: _Candidate) -> _Candidate | None:
        bright = scaled(frame.pixels, self._largest)
        body = find_body(bright)
        if body is None or not is_body(body):
            self.left_out.append(LeftOut(frame.where, NO_BODY))
            return None
        return frame._replace(pixels=align_body(bright, body), area=body.area, is_aligned_here=True)

    def _leave_out(self, faults: dict[int, str]) -> None:
        self.left_out += [LeftOut(self._frames[i].where, reason) for i, reason in faults.items()]
        self._frames = [frame for i, frame in enumerate(self._frames) if i not in faults]


def judge_aligned(frames: NDArray[np.uint8], places: list[str] | None, name: str) -> Reading:
    """Judge frames of the size of aligned ones: leave out what shows no person, and align what is not aligned.

    Args:
        frames: `[T, 64, 64]`.
        places: Names of the frames; None for their numbers.
        name: Name of the sequence.

    Returns:
        The frames, unchanged if they look aligned, and what was left out.
    """
    if frames.max(initial=0) < BODY_THRESHOLD:
        return Reading(frames[:0], (LeftOut(name, NO_BODY),) * len(frames))
    usable = _without(frames, faults_of_mass(frames), places, name)
    if len(usable.silhouettes) == 0 or looks_aligned(usable.silhouettes):
        return usable
    bodies = [find_body(frame) for frame in usable.silhouettes]
    aligned = [
        align_body(frame, body)
        for frame, body in zip(usable.silhouettes, bodies, strict=True)
        if body is not None and is_body(body)
    ]
    lost = [LeftOut(name, NO_BODY)] * (len(bodies) - len(aligned))
    note = LeftOut(name, NOT_ALIGNED, "the bodies do not fill the height in the middle, so all frames were aligned")
    stack = np.stack(aligned) if aligned else frames[:0]
    return Reading(stack, (*usable.left_out, *lost, note))


def _without(frames: NDArray[np.uint8], faults: dict[int, str], places: list[str] | None, name: str) -> Reading:
    if not faults:
        return Reading(frames)
    kept = np.array([t for t in range(len(frames)) if t not in faults], np.intp)
    return Reading(
        frames[kept],
        tuple(LeftOut(places[t] if places else f"{name}, frame {t}", reason) for t, reason in faults.items()),
    )


def finish(
    silhouettes: NDArray[np.uint8], left_out: list[LeftOut], name: str, count: int, is_cut: bool, highest: float
) -> Reading:
    """Check the length of a judged sequence.

    Args:
        silhouettes: The usable frames `[T, 64, 64]`.
        left_out: What was left out.
        name: What errors call the sequence.
        count: The number of frames that the sequence has.
        is_cut: Whether usable frames beyond the limit are not in it.
        highest: The largest value.

    Returns:
        The sequence; what was left out says where it was cut, and where it has fewer than 5 frames.

    Raises:
        SilhouetteError: There is no usable frame.
    """
    if len(silhouettes) == 0:
        filled = sum(each.reason == FILLED for each in left_out)
        white = f", {filled} frames that are white nearly everywhere: is the background white?" if filled else ""
        raise SilhouetteError(
            f"{name}: expected a body in at least one frame, got {count} frames without one, with values in"
            f" 0..{highest:g}{white}"
        )
    if is_cut:
        left_out.append(LeftOut(name, CUT, f"{len(silhouettes)} frames of {count} are used"))
    if len(silhouettes) < FEW:
        left_out.append(LeftOut(name, FEW_FRAMES, f"{len(silhouettes)} of {count}"))
    return Reading(silhouettes, tuple(left_out))


def _wide(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = (SIZE - frame.shape[-1]) // 2
    return np.pad(frame, [(0, 0)] * (frame.ndim - 1) + [(side, side)]) if side else frame


def read_whole(array: NDArray[np.generic], name: str, limit: int | None) -> Reading:
    """Read an array of the size of aligned frames, without a loop over its frames.

    Args:
        array: `[T, 64, 64]` or `[T, 64, 44]`, values as `to_uint8` takes them.
        name: What errors call the sequence.
        limit: The number of frames that are wanted, or None.

    Returns:
        The sequence.

    Raises:
        SilhouetteError: The dtype or the range is refused, or no frame is usable.
    """
    high = largest(array, name)
    refuse_ambiguous(high, name)
    judged = judge_aligned(_wide(scaled(array, high)), None, name)
    left_out, silhouettes = list(judged.left_out), judged.silhouettes
    is_cut = limit is not None and len(silhouettes) > limit
    if is_cut:
        silhouettes = silhouettes[:limit].copy()
    return finish(silhouettes, left_out, name, len(array), is_cut, high)
