"""Records that live recognition gives for every frame, whatever shows them: a terminal, a video file or a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.records import Answer


class Frame(NamedTuple):
    """One picture of a source.

    Attributes:
        number: Its place in the source, from 0; numbers are left out where frames were dropped.
        seconds: Its time in the source's own clock, from 0.
        received: When it arrived, in seconds of `time.monotonic`.
        image: BGR `[H, W, 3]` uint8.
    """

    number: int
    seconds: float
    received: float
    image: NDArray[np.uint8]


class Source(Protocol):
    """Frames of a camera, a stream or a file, one after another.

    Attributes:
        name: The source as a person would name it, without passwords.
        is_live: Whether frames come at their own rate and are dropped where nobody takes them.
        fps: Frames a second, or None where it is not known.
        dropped: Frames so far that came and were not taken.
        reconnections: How often the source was lost and found again.
    """

    name: str
    is_live: bool
    fps: float | None
    dropped: int
    reconnections: int

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends or is closed."""

    def close(self) -> None:
        """End the source; an iteration that waits for a frame ends, too. May be called from another thread."""


@dataclass(frozen=True)
class Seen:
    """A person in a frame.

    Attributes:
        track: The number of the track, never used twice by one watcher.
        box: The bounding box (x, y, width, height) in pixels of the frame.
        frames: The usable silhouettes of the track so far.
        answer: Who it is as far as is known, or None before there are frames enough.
    """

    track: int
    box: tuple[int, int, int, int]
    frames: int
    answer: Answer | None


@dataclass(frozen=True)
class Sighting:
    """News of a track: given when it gets its first answer, when the answer changes, and when it ends.

    Attributes:
        track: The number of the track.
        name: The person, or None: nobody whom the gallery knows.
        distance: The distance to the nearest person, or None where the gallery is empty.
        margin: How much farther the second person is, or None.
        first: When the track was first seen, in UTC.
        last: When it was last seen, in UTC.
        frames: The usable silhouettes so far.
        ended: Whether the track has ended.
    """

    track: int
    name: str | None
    distance: float | None
    margin: float | None
    first: datetime
    last: datetime
    frames: int
    ended: bool

    def as_json(self) -> dict[str, Any]:
        """Return the sighting as JSON holds it: times as ISO 8601, None for nobody."""
        times = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {**vars(self), **times}


@dataclass(frozen=True)
class Update:
    """The result of a frame.

    Attributes:
        frame: The frame.
        seen: The people in it.
        sightings: What became known by it.
        fps: Frames a second that are recognised, over the last seconds.
        delay: Seconds from the frame's arrival to this update.
        dropped: Frames of the source so far that were not taken.
    """

    frame: Frame
    seen: tuple[Seen, ...]
    sightings: tuple[Sighting, ...]
    fps: float
    delay: float
    dropped: int
