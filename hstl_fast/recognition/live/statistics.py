"""Figures of a live recognition, in a memory that does not grow."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from hstl_fast.recognition.live.events import Update

# Delays are counted in classes of so many seconds; the last class holds all longer ones.
CLASS, CLASSES = 0.001, 60_000


class Statistics:
    """Counts the updates of a watcher.

    Attributes:
        frames: The number of frames.
        sightings: The number of sightings.
        tracks: The number of tracks that ended, by name; None for nobody.
        seconds: The time from the first frame to the last.
        dropped: Frames of the source that were not taken.
        worst_delay: The longest delay in seconds.
    """

    def __init__(self) -> None:
        self.frames = self.sightings = self.dropped = 0
        self.tracks: Counter[str | None] = Counter()
        self.worst_delay = 0.0
        self._delays = np.zeros(CLASSES, np.int64)
        self._first = self._last = 0.0
        self._number = -1

    @property
    def seconds(self) -> float:
        """The time from the first frame to the last."""
        return self._last - self._first

    @property
    def fps(self) -> float | None:
        """Frames a second over the whole time, or None for fewer than two frames."""
        return (self.frames - 1) / self.seconds if self.frames > 1 and self.seconds > 0 else None

    def add(self, update: Update) -> None:
        """Count an update; one that brings no new frame counts for its sightings alone."""
        self.sightings += len(update.sightings)
        self.tracks.update(sighting.name for sighting in update.sightings if sighting.ended)
        self.dropped = update.dropped
        if update.frame.number == self._number:
            return
        self._number, self._last = update.frame.number, time.monotonic()
        self._first = self._first if self.frames else self._last
        self.frames += 1
        self.worst_delay = max(self.worst_delay, update.delay)
        self._delays[min(int(max(update.delay, 0.0) / CLASS), CLASSES - 1)] += 1

    def delay(self, share: float) -> float | None:
        """Find the delay that a share of the frames does not exceed.

        Args:
            share: Between 0 and 1, such as 0.5 for the median.

        Returns:
            Seconds, to a millisecond and at most a minute, or None before the first frame.
        """
        if not self.frames:
            return None
        reached = np.searchsorted(np.cumsum(self._delays), share * self.frames)
        return min((int(reached) + 1) * CLASS, max(self.worst_delay, CLASS))
