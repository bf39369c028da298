"""Cameras and network streams: the newest frames, whatever happens to the connection."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from hstl_fast.recognition.live.events import Frame
from hstl_fast.recognition.live.grabber import FRAME, LOST, NO_PICTURE, RECORDING
from hstl_fast.recognition.live.grabbing import Grabber, Message
from hstl_fast.recognition.live.newest import Newest, wait_until
from hstl_fast.silhouettes.video.footage import is_black, possible_rate

# Starts to grab from a camera or a stream.
Connect = Callable[[], Grabber]
Report = Callable[[str], None]
# Seconds before the second try to connect; each later wait is twice as long, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
# A source that has never delivered a frame is given up after so many tries.
FIRST_TRIES = 4
# The rate of a source is that of its last frames: at most so many, and of so many seconds at least.
RATE_FRAMES, RATE_SECONDS = 50, 1.0
# A connection that ends after this share of the timeout has ended by it.
SILENCE = 0.9
# Seconds that a process may need to start; a busy machine is slow.
STARTING = 30.0
# Seconds for the thread of a connection to end with the process that grabs, which the driver of a camera may keep.
LONGEST_END = 2.0


class SourceError(ValueError):
    """A source of frames that cannot be used: the sentence says what was tried."""


def silent_report(sentence: str) -> None:
    """Report nothing."""


class LiveSource:
    """The newest frames of a camera or a stream; a connection that is lost is made again.

    A process of its own grabs every frame as it comes, so that none grows old in a buffer; the last few are kept. A
    recording at an address is played at its own rate, and ends.

    Args:
        name: The source as a person would name it, without passwords.
        connect: Starts to grab from it.
        timeout: Seconds without a frame after which the connection counts as lost.
        report: Called with a sentence when the connection is lost, and when it is found again.
        advice: Says what else is known about a source that never delivers.

    Attributes:
        name: The name.
        is_live: True.
        fps: Frames a second as they came lately, or None where too few have come.
        dropped: Frames so far that came and were not taken.
        reconnections: How often the source was lost and found again.
        bad_frames: Frames so far that are black or have no picture; they are left out.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        timeout: float = 10.0,
        report: Report = silent_report,
        advice: Callable[[], str] = str,
    ) -> None:
        self.name, self.is_live = name, True
        self.fps: float | None = None
        self.dropped = self.reconnections = self.bad_frames = 0
        self._connect, self._timeout, self._report, self._advice = connect, timeout, report, advice
        self._closed = False
        self._next = 0
        self._began: float | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frames until the source is closed.

        Raises:
            SourceError: No frame has come in all tries.
        """
        tries, started = 0, time.monotonic()
        while not self._closed:
            connection = _Connection(self._connect, self._timeout, self._next, self._began)
            try:
                for frame in self._frames(connection):
                    if tries and self._next:
                        self.reconnections += 1
                        self._report(f"{self.name}: found again")
                    tries = 0
                    yield frame
            finally:
                self._end(connection)
            if self._closed or (connection.is_recording and self._next):
                return
            tries += 1
            why = connection.why or f"no frame for {self._timeout:g} seconds"
            if not self._next and tries >= FIRST_TRIES:
                raise SourceError(self._never(tries, time.monotonic() - started, why))
            self._report(f"{self.name}: {why}; trying again{'' if self._next else f' ({tries} of {FIRST_TRIES})'}")
            wait = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
            wait_until(time.monotonic() + wait, lambda: self._closed)

    def close(self) -> None:
        """End the source within a moment, also while OpenCV waits; from any thread, or from a signal's handler."""
        self._closed = True

    def _frames(self, connection: _Connection) -> Iterator[Frame]:
        """The frames of one connection until it is lost."""
        dropped, bad = self.dropped, self.bad_frames
        while not self._closed:
            frame = connection.newest.take()
            self.dropped, self.bad_frames = dropped + connection.newest.dropped, bad + connection.bad_frames
            if frame is not None:
                self.fps = connection.rate or self.fps
                yield frame
            elif connection.newest.ended or time.monotonic() - connection.alive > self._timeout:
                return

    def _end(self, connection: _Connection) -> None:
        connection.end()
        self._next, self._began = connection.next, connection.began

    def _never(self, tries: int, seconds: float, why: str) -> str:
        advice = self._advice()
        return (
            f"{self.name}: expected a source that delivers frames, got none in {tries} tries over {seconds:.0f} "
            f"seconds ({why}){f'; {advice}' if advice else ''}"
        )


class _NoGrabber:
    """Stands for a process that could not be started: the source is lost at once."""

    def __init__(self, why: str) -> None:
        self._why = why

    def messages(self) -> Iterator[Message]:
        yield Message(LOST, 0, time.monotonic(), None, self._why)

    def end(self) -> None:
        pass


class _Connection:
    """A thread that takes what a grabber brings."""

    def __init__(self, connect: Connect, timeout: float, first: int, began: float | None) -> None:
        self.newest = Newest()
        self.next, self.began = first, began
        self.is_recording = self._ending = False
        self.why: str | None = None
        self.rate: float | None = None
        self.bad_frames = 0
        self.alive = time.monotonic() + STARTING
        self._first, self._timeout = first, timeout
        self._arrivals: deque[Message] = deque(maxlen=RATE_FRAMES)
        self._grabber: Grabber
        try:
            self._grabber = connect()
        except OSError as error:  # for want of memory, say, which may be there at the next try
            self._grabber = _NoGrabber(f"the process that grabs its frames cannot be started: {error.strerror}")
        self._thread = threading.Thread(target=self._take_all, name="hstl-fast source", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the grabber, and wait for the thread, which ends with it; one that does not is left behind."""
        self._ending = True
        self._grabber.end()
        self._thread.join(LONGEST_END)

    def _take_all(self) -> None:
        why: str | None = "the process that grabs its frames has ended"
        for message in self._grabber.messages():
            if message.kind == LOST:
                # After the time that OpenCV was given, it is the silence that ended the connection.
                why = message.text if message.received - self.alive < SILENCE * self._timeout else None
            else:
                self._take(message)
        self.why = None if self._ending else why
        self.newest.end()

    def _take(self, message: Message) -> None:
        self.alive = message.received
        self.is_recording = self.is_recording or message.kind == RECORDING
        if message.kind not in (FRAME, NO_PICTURE):
            return
        number = self._first + message.number
        self.newest.miss(number - self.next)
        self.next = number + 1
        self._measure(message._replace(image=None))
        if message.image is None or is_black(message.image):
            self.bad_frames += 1
            return
        self.began = message.received if self.began is None else self.began
        self.newest.put(Frame(number, message.received - self.began, message.received, message.image))

    def _measure(self, message: Message) -> None:
        self._arrivals.append(message)
        first = self._arrivals[0]
        seconds = message.received - first.received
        if seconds >= RATE_SECONDS:
            self.rate = possible_rate((message.number - first.number) / seconds)
