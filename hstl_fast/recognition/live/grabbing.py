"""Frames of a camera or a stream out of a process of their own, which can be ended at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.live.grabber import FRAME, HEADER

PROGRAM = Path(__file__).with_name("grabber.py")
# The modules that this process finds are found by the other one, too.
_START = "import sys, runpy; sys.path[:] = {path!r}; runpy.run_path({program!r}, run_name='__main__')"
# Where the user has asked for them, OpenCV's and FFmpeg's own messages are shown.
_TALKATIVE = ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_LOG_LEVEL", "OPENCV_FFMPEG_DEBUG")
# Seconds for a process to take leave of its camera, which may else keep the place for it.
FAREWELL = 0.5
# Seconds for a process to end that was killed.
LONGEST_DEATH = 2.0
# Whole frames in a pipe cost fewer turns of two processes; systems that do not know it do without.
_PIPE_BYTES, _SET_PIPE_SIZE = 2**20, 1031


class Message(NamedTuple):
    """The words of a grabbing process.

    Attributes:
        kind: One of the kinds of `hstl_fast.recognition.live.grabber`.
        number: The number of the frame in this connection, from 0.
        received: The time of `time.monotonic` at which it came.
        image: BGR `[H, W, 3]` uint8, or None.
        text: The reason, of the last message.
    """

    kind: bytes
    number: int
    received: float
    image: NDArray[np.uint8] | None
    text: str


class Grabber(Protocol):
    """Something that grabs frames."""

    def messages(self) -> Iterator[Message]:
        """Yield messages until the source is lost, or `end` is called."""

    def end(self) -> None:
        """End it within a moment, from any thread."""


class GrabbingProcess:
    """A process that grabs frames.

    Args:
        source: The number or the path of a camera, or an address, which may have a password in it.
        timeout: Seconds that OpenCV may wait for an address; None for a camera.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, source: int | str, timeout: float | None) -> None:
        talkative = any(name in os.environ for name in _TALKATIVE)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path, program=str(PROGRAM))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if talkative else subprocess.DEVNULL,
        )
        bound = None if timeout is None else max(1, min(round(1000 * timeout), 2**31 - 1))
        order = json.dumps({"source": source, "timeout_ms": bound}) + "\n"
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already, which its messages will show
            # Passwords are not for the list of processes.
            self._process.stdin.write(order.encode())
            self._process.stdin.flush()

    def messages(self) -> Iterator[Message]:
        """Yield messages until the source is lost, or `end` is called."""
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            _enlarge(pipe)
            while (head := _exactly(pipe, HEADER.size)) is not None:
                kind, number, received, rows, columns, size = HEADER.unpack(head)
                content = _exactly(pipe, size)
                if content is None:
                    return
                if kind == FRAME:
                    image = np.frombuffer(content, np.uint8).reshape(rows, columns, -1)
                    yield Message(kind, number, received, image, "")
                else:
                    yield Message(kind, number, received, None, content.decode())

    def end(self) -> None:
        """End the process within a moment, from any thread."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # A process that waits in the driver of a camera ends only when the driver lets it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LONGEST_DEATH)


def _exactly(pipe: IO[bytes], size: int) -> bytearray | None:
    """So many bytes, or None where the pipe ends before."""
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = pipe.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            return None
        done += count
    return content


def _enlarge(pipe: IO[bytes]) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)
