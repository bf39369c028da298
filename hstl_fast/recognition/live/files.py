"""Video files as sources: every frame in order, or at the file's own rate like a camera; again and again if asked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing

from hstl_fast.recognition.live.events import Frame
from hstl_fast.recognition.live.newest import Newest, wait_until
from hstl_fast.recognition.names import clean_source
from hstl_fast.silhouettes.video.footage import Footage

# Frames a second where neither the header nor the times of the frames tell.
USUAL_FPS = 25.0


class FileSource:
    """The frames of a video file.

    Args:
        path: The file.
        loop: Whether it begins again at its end; numbers and times go on.
        pace: Whether frames come at the file's own rate, and are dropped where nobody takes them.

    Attributes:
        name: The name of the file, with `?` for what cannot be printed.
        is_live: Whether frames come at their own rate, which is `pace`.
        fps: Frames a second, or None where the file does not say it.
        dropped: Frames so far that came and were not taken.
        reconnections: 0.
        bad_frames: Frames so far that are black or have no picture; they are left out.

    Raises:
        SilhouetteError: The file cannot be opened, or no frame decodes.
    """

    def __init__(self, path: str | os.PathLike[str], *, loop: bool = False, pace: bool = False) -> None:
        self._footage = Footage(path)
        self.name, self.is_live, self.fps = clean_source(self._footage.path.name), pace, self._footage.fps
        self.dropped = self.reconnections = self.bad_frames = 0
        self._loop = loop
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the file ends or the source is closed.

        Raises:
            SilhouetteError: All frames are black or one and the same picture.
        """
        return self._paced() if self.is_live else self._decoded()

    def close(self) -> None:
        """End the source within a moment; from any thread, or from a signal's handler."""
        self._closed = True

    def _decoded(self) -> Generator[Frame, None, None]:
        """The frames with a picture, received when they are decoded."""
        first, seconds, shift = 0, 0.0, 0.0
        step = 1 / (self.fps or USUAL_FPS)
        while not self._over():
            number = -1
            with closing(self._footage.frames()) as shots:
                for number, image, in_file in shots:
                    if self._over():
                        return
                    if first + number > 0:
                        later = in_file + shift
                        seconds = later if number > 0 and later > seconds else seconds + step
                    if number == 0:
                        shift = seconds - in_file
                    if image is None:
                        self.bad_frames += 1
                    else:
                        yield Frame(first + number, seconds, time.monotonic(), image)
            if not self._loop:
                return
            first += number + 1

    def _over(self) -> bool:
        return self._closed

    def _paced(self) -> Iterator[Frame]:
        newest = Newest()
        thread = threading.Thread(target=self._play, args=(newest,), name="hstl-fast source", daemon=True)
        thread.start()
        while not (self._closed or newest.ended):
            frame = newest.take()
            self.dropped = newest.dropped
            if frame is not None:
                yield frame
        if newest.error is not None:
            raise newest.error

    def _play(self, newest: Newest) -> None:
        """Bring each frame when its time has come."""
        started = time.monotonic()
        try:
            with closing(self._decoded()) as frames:
                for frame in frames:
                    wait_until(started + frame.seconds, self._over)
                    newest.put(frame._replace(received=time.monotonic()))
            newest.end()
        except Exception as error:  # the one who takes the frames is to see it
            newest.end(error)
