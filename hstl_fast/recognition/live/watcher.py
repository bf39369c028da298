"""Live recognition: frames of a source become updates that say who is in the picture."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from hstl_fast.recognition.live.events import Source, Update
from hstl_fast.recognition.live.naming import KnowsPeople, Naming
from hstl_fast.recognition.live.passes import Passes
from hstl_fast.recognition.live.people import People
from hstl_fast.recognition.live.watch import Watch
from hstl_fast.recognition.live.windows import KEPT, PATIENCE, Tracks
from hstl_fast.recognition.records import Clip

# Silhouettes of a window: networks tell nothing from fewer, and a track keeps no more.
SHORTEST_WINDOW, LONGEST_WINDOW = 5, KEPT
# Frames between two passes: whoever has gone for longer before a pass is not noticed by it.
MOST_EVERY = PATIENCE
# Least height of a body in pixels.
LEAST_HEIGHT = 16


class Watcher:
    """Recognises the people in front of a camera.

    Every frame is searched for moving bodies at once. Every so many frames, people are followed through the last
    frames, and those who have enough new silhouettes are embedded together and looked for in the gallery: beside the
    frames where the source is live, before the next frame where it is not, so that a file gives the same each time.
    Memory is bounded, however long it runs.

    Args:
        gallery: The gallery; a change in it is seen within a second or two.
        window: Silhouettes that are embedded at a time, 5 to 150: networks were trained on about 30.
        every: Frames between two embeddings of a track, 1 to 25.
        min_height: Least height of a body, in pixels, 16 or more.
        segmenter: `background` or `onnx:MODEL.onnx`.
        threshold: The greatest distance at which a name is given, as for `Gallery.identify`.
        false_accept_rate: The share of strangers who may be named, as for `Gallery.identify`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        gallery: KnowsPeople,
        *,
        window: int = 30,
        every: int = 15,
        min_height: int = 48,
        segmenter: str = "background",
        threshold: float | None = None,
        false_accept_rate: float | None = None,
    ) -> None:
        for name, value, least, most in (
            ("window", window, SHORTEST_WINDOW, LONGEST_WINDOW),
            ("every", every, 1, MOST_EVERY),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} must be {least} to {most} frames, got {value}")
        if min_height < LEAST_HEIGHT:
            raise ValueError(f"min_height must be at least {LEAST_HEIGHT} pixels, got {min_height}")
        self._naming = Naming(gallery, threshold, false_accept_rate)
        self._window, self._every = window, every
        self._min_height, self._segmenter = min_height, segmenter
        self._numbers = itertools.count(1)
        self._stopped = threading.Event()
        self._source: Source | None = None
        self._watch: Watch | None = None

    def updates(self, source: Source) -> Iterator[Update]:
        """Recognise people in every frame of a source until it ends or `stop` is called.

        Args:
            source: The source, which is closed at the end.

        Yields:
            An update for each frame; and, where tracks are left at the end, one more for the last frame with what is
            known about them.

        Raises:
            GalleryError: The gallery cannot be read.
            ValueError: The source gives no frame, as it says itself.
            RuntimeError: The watcher is at work already.
        """
        if self._source is not None:
            raise RuntimeError("this watcher is at work already; make another one for another source")
        self._source = source
        try:
            watch = self._watch_of(source)
        except BaseException:
            self._source = None
            source.close()
            raise
        self._watch = watch
        try:
            if not self._stopped.is_set():
                for frame in source:
                    yield watch.update(frame)
                    if self._stopped.is_set():
                        break
                yield from watch.end(hurried=self._stopped.is_set())
        finally:
            watch.close()
            self._source = None

    def _watch_of(self, source: Source) -> Watch:
        people = People(self._segmenter, self._min_height, source.name, waits=not source.is_live)
        tracks = Tracks(self._window, self._every, self._numbers, people.camera_may_move)
        return Watch(source, people, Passes(source.name, tracks, self._naming), self._every)

    def clip(self, track: int) -> Clip | None:
        """Return the last usable silhouettes of a track, to enrol the person: up to 150 of them.

        May be called from any thread, and also for the sixteen tracks that ended last.

        Args:
            track: The number of the track.

        Returns:
            The clip, or None where the track is not known or has no usable silhouettes.
        """
        watch = self._watch
        return None if watch is None else watch.clip(track)

    def stop(self) -> None:
        """End `updates` after the frame that is being worked at. From any thread, and also before it begins."""
        self._stopped.set()
        source = self._source
        if source is not None:
            source.close()
