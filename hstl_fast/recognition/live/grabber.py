"""A program that grabs the frames of a camera or a stream and writes them to its standard output.

OpenCV can wait for a stream for as long as it likes, and a thread that waits in it cannot be ended; a process can. It
is run as a file by `hstl_fast.recognition.live.grabbing`, and imports OpenCV alone.

Standard input gives a line of JSON: `source`, the number of a camera or an address; `timeout_ms`, or null for cameras.
Its end ends the program, which takes leave of the source if OpenCV lets it. Each message is a `HEADER` (kind, number,
time of `time.monotonic`, rows, columns, bytes that follow) and its bytes.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
from collections import deque
from typing import Any, BinaryIO

HEADER = struct.Struct("<cQdIIQ")
# OpenCV is imported; a live source or a recording is open; a frame with or without a picture; the source is lost, and
# why.
READY, OPEN, RECORDING, FRAME, NO_PICTURE, LOST = b"S", b"O", b"R", b"F", b"N", b"L"
# Frames that wait to be written.
CAPACITY = 3
# Seconds to take leave of a source.
LONGEST_FAREWELL = 2.0
# Rates outside these are mistakes of the header.
SLOWEST_FPS, FASTEST_FPS = 1.0, 240.0


class Outbox:
    """Writes messages in a thread; where frames come faster than they are read, the oldest are left out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._messages: deque[tuple[bytes, bytes, Any]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def put(self, kind: bytes, number: int = 0, content: Any = b"", shape: tuple[int, int] = (0, 0)) -> None:
        """Send a message."""
        header = HEADER.pack(kind, number, time.monotonic(), *shape, len(content))
        with self._changed:
            self._messages.append((kind, header, content))
            frames = [message for message in self._messages if message[0] in (FRAME, NO_PICTURE)]
            if len(frames) > CAPACITY:
                self._messages.remove(frames[0])
            self._changed.notify()

    def end(self) -> None:
        """Wait until all is written."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _write_all(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._messages or self._ended)
                    if not self._messages:
                        return
                    _, header, content = self._messages.popleft()
                self._file.write(header)
                self._file.write(content)
                self._file.flush()
        except OSError:  # nobody reads
            os._exit(0)


def main() -> None:
    """Grab frames until the source ends, or standard input does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too
    order = json.loads(sys.stdin.buffer.readline())
    stopped = threading.Event()
    threading.Thread(target=_stop_with_input, args=(stopped,), daemon=True).start()
    # What libraries print goes to standard error.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    outbox = Outbox(out)
    import cv2

    outbox.put(READY)
    why = _grab_all(cv2, order, outbox, stopped)
    if not stopped.is_set():
        outbox.put(LOST, content=why.encode())
        outbox.end()
    os._exit(0)


def _stop_with_input(stopped: threading.Event) -> None:
    """Stop at the end of the input, and end where OpenCV does not come back."""
    sys.stdin.buffer.read()
    stopped.set()
    time.sleep(LONGEST_FAREWELL)
    os._exit(0)


def _grab_all(cv2: Any, order: dict[str, Any], outbox: Outbox, stopped: threading.Event) -> str:
    """Send all frames; return why there are no more."""
    capture = _open(cv2, order)
    if not capture.isOpened():
        return "it cannot be opened"
    pace = _pace(cv2, capture)
    outbox.put(OPEN if pace is None else RECORDING)
    number, started = 0, time.monotonic()
    while not stopped.is_set():
        if pace is not None:
            stopped.wait(max(0.0, started + number * pace - time.monotonic()))
        if not capture.grab():
            return "it has ended" if number else "it opens, but no frame comes"
        ok, image = capture.retrieve()
        if ok and image is not None:
            outbox.put(FRAME, number, memoryview(image.reshape(-1)), image.shape[:2])
        else:
            outbox.put(NO_PICTURE, number)
        number += 1
    capture.release()
    return ""


def _open(cv2: Any, order: dict[str, Any]) -> Any:
    if order["timeout_ms"] is None:
        return cv2.VideoCapture(order["source"])
    bound = order["timeout_ms"]
    bounds = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, bound, cv2.CAP_PROP_READ_TIMEOUT_MSEC, bound]
    return cv2.VideoCapture(order["source"], cv2.CAP_FFMPEG, bounds)


def _pace(cv2: Any, capture: Any) -> float | None:
    """Seconds between the frames of a recording, which would else come as fast as they can; None for others."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    is_recording = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    return 1 / rate if is_recording and SLOWEST_FPS <= rate <= FASTEST_FPS else None


if __name__ == "__main__":
    main()
