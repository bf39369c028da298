"""One run through a source: frames are searched at once, and passes over the last ones run beside."""

from __future__ import annotations

import contextvars
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from hstl_fast.recognition.live.events import Frame, Seen, Source, Update
from hstl_fast.recognition.live.following import Bodies, Following
from hstl_fast.recognition.live.passes import Outcome, Passes, Stretch
from hstl_fast.recognition.live.people import People
from hstl_fast.recognition.live.sightings import Sightings
from hstl_fast.recognition.live.threads import Halved
from hstl_fast.recognition.live.windows import Box
from hstl_fast.recognition.records import Clip
from hstl_fast.silhouettes.video.blobs import Blob

# After so many seconds without a frame nobody is followed any more.
LONGEST_GAP = 1.5
# Somebody is shown until he has not been seen apart from others for so many frames.
SHOWN_FOR = 15
# The rate is that of the frames of so many seconds, and of so many frames at most.
RATE_SECONDS, RATE_FRAMES = 5.0, 512


class _Taken(NamedTuple):
    """A frame that was searched.

    Attributes:
        place: Its index; indices have no gaps.
        number: Its number in the source.
        seconds: Its time in the source.
        when: Its time, in UTC.
        blobs: Its bodies.
    """

    place: int
    number: int
    seconds: float
    when: datetime
    blobs: list[Blob]


class Watch:
    """One run through a source.

    Args:
        source: The source.
        people: Finds the bodies of its frames.
        passes: Follows and names people.
        every: Frames between two passes.
    """

    def __init__(self, source: Source, people: People, passes: Passes, every: int) -> None:
        self._source, self._people, self._passes, self._every = source, people, passes, every
        self._threads = Halved() if source.is_live else None
        initial = None if self._threads is None else self._threads.begin_pass
        self._executor = ThreadPoolExecutor(1, "hstl-fast recognition", initializer=initial)
        self._running: Future[Outcome] | None = None
        self._taken: deque[_Taken] = deque(maxlen=passes.memory)
        self._outcome = Outcome(-1, {}, {})
        self._following, self._sightings = Following(), Sightings()
        self._began = datetime.now(timezone.utc)
        self._frame: Frame | None = None
        self._index = self._since_pass = 0
        self._times: deque[float] = deque(maxlen=RATE_FRAMES)

    def update(self, frame: Frame) -> Update:
        """Recognise the people in the next frame."""
        self._take_nothing_before(frame)
        sight = self._people.see(frame, self._index)
        self._take(frame, sight.blobs)
        self._frame = frame
        boxes = self._following.next(sight.blobs)
        sightings = []
        for outcome in self._outcomes():
            self._outcome = outcome
            boxes = self._follow_on(outcome)
            sightings += self._sightings.of(outcome, self._when)
        seen = tuple(self._seen(number, self._people.box(box, sight.motion)) for number, box in sorted(boxes.items()))
        return Update(frame, seen, tuple(sightings), self._rate(), self._delay(frame), self._source.dropped)

    def end(self, hurried: bool) -> Iterator[Update]:
        """End all tracks; where it is not hurried, those who have new silhouettes are named before.

        Yields:
            An update of the last frame, if there is anything to say.
        """
        outcomes = [] if self._running is None else [self._running.result()]
        if not hurried and self._since_pass and self._taken:
            outcomes.append(self._passes.run(self._stretch()))
        outcomes.append(self._passes.end(outcomes[-1] if outcomes else self._outcome))
        told = [sighting for outcome in outcomes for sighting in self._sightings.of(outcome, self._when)]
        frame, self._running = self._frame, None
        if told and frame is not None:
            yield Update(frame, (), tuple(told), self._rate(), self._delay(frame), self._source.dropped)

    def clip(self, track: int) -> Clip | None:
        """Return the last usable silhouettes of a track, or None where there are none. From any thread."""
        return self._passes.clip(track)

    def close(self) -> None:
        """Close the source, and end what runs beside."""
        self._source.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._people.close()
        if self._threads is not None:
            self._threads.restore()

    def _take_nothing_before(self, frame: Frame) -> None:
        """Let a few empty frames pass where the source was away or changed its size, so that nobody is followed on."""
        if self._frame is None:
            return
        is_next = 0 <= frame.seconds - self._frame.seconds <= LONGEST_GAP
        if not is_next or self._people.has_other_size(frame):
            self._following = Following()
            for _ in range(SHOWN_FOR + 1):
                self._take(self._frame, [])

    def _take(self, frame: Frame, blobs: list[Blob]) -> None:
        self._taken.append(_Taken(self._index, frame.number, frame.seconds, self._time_of(frame), blobs))
        self._index += 1
        self._since_pass += 1

    def _time_of(self, frame: Frame) -> datetime:
        if self._source.is_live:
            return datetime.now(timezone.utc) - timedelta(seconds=time.monotonic() - frame.received)
        return self._began + timedelta(seconds=frame.seconds)

    def _when(self, index: int) -> datetime:
        """The time of a frame that is remembered, or of the first that is."""
        return self._taken[max(0, index - self._taken[0].place)].when

    def _outcomes(self) -> Iterator[Outcome]:
        """The outcome of a pass that is ready; a new pass begins where one is due and none is running."""
        if self._running is not None and self._running.done():
            outcome, self._running = self._running.result(), None
            yield outcome
        if self._running is None and self._since_pass >= self._every:
            self._since_pass = 0
            if self._source.is_live:
                # The backend that is selected here is a variable of this context.
                run = contextvars.copy_context().run
                self._running = self._executor.submit(run, self._passes.run, self._stretch())
            else:
                yield self._passes.run(self._stretch())

    def _stretch(self) -> Stretch:
        return Stretch(self._taken[0].place, [taken.blobs for taken in self._taken], self._taken_rate())

    def _taken_rate(self) -> float | None:
        """Frames a second that are searched, in the time of the source; None where it cannot be told."""
        first, last, count = self._taken[0], self._taken[-1], len({taken.number for taken in self._taken})
        if count < 2 or last.number <= first.number:
            return self._source.fps
        if self._source.fps is not None:
            return self._source.fps * (count - 1) / (last.number - first.number)
        seconds = last.seconds - first.seconds
        return (count - 1) / seconds if seconds > 0 else None

    def _follow_on(self, outcome: Outcome) -> dict[int, Box]:
        """The boxes in the last frame of those whom a pass has found in earlier ones."""
        recent = {
            number: standing.last
            for number, standing in outcome.standings.items()
            if self._index - 1 - standing.last.frame <= SHOWN_FOR
        }
        first = min((place.frame for place in recent.values()), default=self._index)
        return self._following.begin(recent, [Bodies(t.place, t.blobs) for t in self._taken if t.place >= first])

    def _seen(self, number: int, box: Box) -> Seen:
        standing = self._outcome.standings[number]
        return Seen(number, box, standing.frames, standing.answer)

    def _rate(self) -> float:
        now = time.monotonic()
        self._times.append(now)
        while now - self._times[0] > RATE_SECONDS:
            self._times.popleft()
        span = now - self._times[0]
        return (len(self._times) - 1) / span if span > 0 else 0.0

    def _delay(self, frame: Frame) -> float:
        return time.monotonic() - frame.received
