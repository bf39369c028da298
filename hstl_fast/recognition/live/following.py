"""People followed from frame to frame by their boxes, between two passes that tell who is who."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hstl_fast.recognition.live.windows import Box, Place
from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.pieces import PERSON_SHARE
from hstl_fast.silhouettes.video.tracking import MAX_GAP

# A body is followed to the box that overlaps its last one by at least this much (intersection over union).
OVERLAP = 0.2
# A body has become a part of another one, or has come out of it, where this share of its box lies in the other's.
INSIDE = 0.5


class Bodies(NamedTuple):
    """The bodies of a frame.

    Attributes:
        frame: Index of the frame.
        blobs: The bodies.
    """

    frame: int
    blobs: list[Blob]


class Following:
    """The boxes of people who are followed by the overlap of their boxes.

    Boxes do not tell who is who after a meeting: where two bodies become one, or one becomes two, nobody of them is
    followed any more, until a pass has told them apart.
    """

    def __init__(self) -> None:
        self._boxes: dict[int, Box] = {}
        # For how many frames each has not been found.
        self._missing: dict[int, int] = {}
        # The bodies of the last frame that belong to no track.
        self._others: list[Box] = []

    def next(self, blobs: Iterable[Blob]) -> dict[int, Box]:
        """Follow people into the next frame.

        Args:
            blobs: The bodies of the frame.

        Returns:
            The boxes of those who are found in it, by the number of the track.
        """
        there = [blob.box for blob in blobs]
        before = {**self._boxes, **{-1 - i: box for i, box in enumerate(self._others)}}
        after = overlapping(before, there)
        gone = [box for number, box in before.items() if number not in after]
        new = [box for box in there if box not in after.values()]
        found = {
            number: box
            for number, box in after.items()
            if number in self._boxes and not (_any_lies_in(box, gone) or _any_lies_in(before[number], new))
        }
        missing = {number: self._missing.get(number, 0) + 1 for number in self._boxes if number not in after}
        self._missing = {
            number: count
            for number, count in missing.items()
            if count <= MAX_GAP and not any(_any_lies_in(box, [before[number]]) for box in there)
        }
        self._boxes = {**{number: before[number] for number in self._missing}, **found}
        self._others = [box for box in there if box not in found.values()]
        return found

    def begin(self, places: Mapping[int, Place], frames: Iterable[Bodies]) -> dict[int, Box]:
        """Follow people from where they were seen last.

        Args:
            places: The last place of each track, by its number.
            frames: The frames since then, and maybe earlier ones, in order.

        Returns:
            The boxes of those who are found in the last frame.
        """
        self._boxes, self._missing, self._others, found = {}, {}, [], {}
        for frame, blobs in frames:
            found = self.next(blobs)
            here = {number: place.box for number, place in places.items() if place.frame == frame}
            self._boxes.update(here)
            self._others = [box for box in self._others if box not in here.values()]
            found.update(here)
        return found


def overlapping(boxes: Mapping[int, Box], candidates: Iterable[Box]) -> dict[int, Box]:
    """Choose the box of the next frame for every track.

    Args:
        boxes: The last box of each track, by its number.
        candidates: The boxes of the next frame.

    Returns:
        The box of every track for which there is one. Boxes that overlap most go first; a box belongs to one track.
    """
    there = list(candidates)
    pairs = [(-_overlap(box, other), number, i) for number, box in boxes.items() for i, other in enumerate(there)]
    found: dict[int, Box] = {}
    taken: set[int] = set()
    for overlap, number, i in sorted(pairs):
        if -overlap >= OVERLAP and number not in found and i not in taken:
            found[number] = there[i]
            taken.add(i)
    return found


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    common = _common(a, b)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def _any_lies_in(box: Box, others: Iterable[Box]) -> bool:
    """Whether enough of another box, high enough to be that of a person and no piece of a body, lies in a box."""
    people = (other for other in others if other[3] >= PERSON_SHARE * box[3])
    return any(_common(box, other) >= INSIDE * other[2] * other[3] for other in people)


def _common(a: Box, b: Box) -> int:
    """Pixels of the intersection."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, across) * max(0, down)
