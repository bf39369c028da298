"""Annotated video files, written while a recognition runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.live.files import USUAL_FPS
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.footage import possible_rate

# Containers that OpenCV writes. What an abrupt end leaves of the last two can be played up to its last 256 KiB; an MP4
# has its index at the end of the file, and is lost.
SUFFIXES = (".mp4", ".mkv", ".avi")
# MPEG-4 part 2, which the FFmpeg of every OpenCV can write.
CODEC = "mp4v"
# The video ends while so many bytes of the disk are left, since OpenCV says nothing about a full one.
LEAST_FREE = 64 * 2**20
# Where frames are missing, the picture before them stays, but no longer than so many seconds.
LONGEST_STILL = 2.0


class Recorder:
    """Writes pictures to a video file of a constant rate.

    Args:
        path: The file: `.mp4`, or `.mkv` and `.avi`, which can be played after an abrupt end, too.
        fps: Frames a second, or None where it is not known: 25.
        overwrite: Whether an earlier file may be replaced.

    Attributes:
        path: The file.
        fps: Frames a second.
        frames: Frames written so far.

    Raises:
        ValueError: The name has another suffix, or is no UTF-8.
        FileExistsError: There is such a file, and `overwrite` is not set.
        OSError: The folder cannot be written, or this OpenCV cannot write such videos.
        ImportError: OpenCV is missing; it comes with the extra `[video]`.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float | None, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.fps = possible_rate(fps or 0) or USUAL_FPS
        self.frames = 0
        self._writer: Any = None
        self._size = (0, 0)
        self._started = self._free_until = 0.0
        self._before: NDArray[np.uint8] | None = None
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}: expected the name of a video that ends in {', '.join(SUFFIXES)}")
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}: expected a name that is UTF-8, as OpenCV needs it") from error
        if self.path.is_dir():
            raise IsADirectoryError(f"{path}: expected a file to write, got a folder")
        if self.path.exists() and not overwrite:
            raise FileExistsError(f"{path}: exists already; it is replaced only if asked for (overwrite)")
        self._try()

    def write(self, picture: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Write a picture.

        Args:
            picture: BGR uint8 `[H, W, 3]`; one of another size than the first is resized to it.
            seconds: Its time. The pictures before it are repeated where frames are missing, and a picture that comes
                sooner than the rate allows is left out. None: it follows the one before.

        Raises:
            OSError: The disk is nearly full; the video ends, and can be played.
        """
        if self._writer is None:
            self._open(picture, seconds or 0.0)
        due = self._due(seconds)
        if due <= 0:
            return
        self._check_disk()
        height, width = picture.shape[:2]
        if (width, height) != self._size:
            picture = np.asarray(opencv().resize(picture, self._size))
        for _ in range(due - 1):
            self._writer.write(picture if self._before is None else self._before)
        self._writer.write(picture)
        self._before = picture
        self.frames += due

    def close(self) -> None:
        """Finish the file; where nothing was written, there is none.

        Raises:
            OSError: What was written cannot be read back.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = self._before = None
        capture = opencv().VideoCapture(str(self.path))
        readable = capture.isOpened() and capture.grab()
        capture.release()
        if not readable:
            raise OSError(f"{self.path}: the video cannot be read back; was the disk full?")

    def _try(self) -> None:
        """Write a small video beside the file and remove it."""
        cv2 = opencv()
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path}: the folder {str(self.path.parent)!r} does not exist")
        try:
            with tempfile.TemporaryDirectory(prefix=f".{self.path.name[:40]}.draft-", dir=self.path.parent) as folder:
                draft = Path(folder) / f"trial{self.path.suffix}"
                writer = cv2.VideoWriter(str(draft), cv2.VideoWriter_fourcc(*CODEC), self.fps, (64, 64))
                works = writer.isOpened()
                writer.release()
        except OSError as error:
            raise OSError(f"{self.path}: cannot be written: {error.strerror}") from error
        if not works:
            raise OSError(f"{self.path}: this OpenCV cannot write {self.path.suffix} with the codec {CODEC}")

    def _open(self, picture: NDArray[np.uint8], seconds: float) -> None:
        cv2 = opencv()
        height, width = picture.shape[:2]
        self._size, self._started = (width, height), seconds
        self._check_disk()
        writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*CODEC), self.fps, self._size)
        if not writer.isOpened():
            raise OSError(f"{self.path}: a video of {width} x {height} pixels cannot be written")
        self._writer = writer

    def _due(self, seconds: float | None) -> int:
        """How many frames bring the video to the time of the next picture; a long gap is shortened."""
        if seconds is None:
            return 1
        due = round((seconds - self._started) * self.fps) + 1 - self.frames
        most = max(1, round(LONGEST_STILL * self.fps))
        if due > most:
            self._started += (due - most) / self.fps
        return min(due, most)

    def _check_disk(self) -> None:
        if self.frames % round(self.fps):
            return
        if shutil.disk_usage(self.path.parent).free < LEAST_FREE:
            raise OSError(f"{self.path}: the disk is nearly full (less than {LEAST_FREE >> 20} MiB are left)")
