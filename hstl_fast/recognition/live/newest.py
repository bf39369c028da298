"""A place for the newest frames, between the thread that brings frames and the one that takes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from hstl_fast.recognition.live.events import Frame

# Waits look so often whether they are to end. A flag that is looked at can be set by a signal's handler, which may
# acquire no lock.
GLANCE = 0.05
# A frame waits while so many newer ones come: a short delay of the one who takes them costs no frame, and a lasting one
# does not grow.
CAPACITY = 5


class Newest:
    """Holds a few frames in order; where there is no room for a newer one, the oldest is dropped.

    Args:
        capacity: Frames that are held at most, 1 or more.

    Attributes:
        dropped: Frames that were dropped.
        error: The error that ended the frames, or None.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        self.error: Exception | None = None
        self._frames: deque[Frame] = deque(maxlen=capacity)
        self._ended = False
        self._changed = threading.Condition()

    @property
    def ended(self) -> bool:
        """Whether no frame is there and none will come."""
        with self._changed:
            return self._ended and not self._frames

    def put(self, frame: Frame) -> None:
        """Bring a frame."""
        with self._changed:
            self.dropped += len(self._frames) == self._frames.maxlen
            self._frames.append(frame)
            self._changed.notify()

    def miss(self, count: int) -> None:
        """Count frames that were dropped before they came here."""
        with self._changed:
            self.dropped += count

    def end(self, error: Exception | None = None) -> None:
        """Say that no more frames will come, and which error is the reason, if it is one."""
        with self._changed:
            self._ended, self.error = True, error
            self._changed.notify()

    def take(self, seconds: float = GLANCE) -> Frame | None:
        """Take the oldest frame; wait for it at most so long, and give None where none comes."""
        with self._changed:
            if not self._frames and not self._ended:
                self._changed.wait(seconds)
            return self._frames.popleft() if self._frames else None


def wait_until(moment: float, stopped: Callable[[], bool]) -> None:
    """Wait for a moment of `time.monotonic`, or until `stopped` says so."""
    while not stopped() and (left := moment - time.monotonic()) > 0:
        time.sleep(min(left, GLANCE))
