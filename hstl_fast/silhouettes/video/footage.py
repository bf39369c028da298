"""Video files as frames, with what is wrong with them: lying headers, frames that do not decode, unknown rates."""

from __future__ import annotations

import math
import os
import tempfile
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.containers import codec_in, named

# Rates outside these are mistakes of the header.
SLOWEST_FPS, FASTEST_FPS = 1.0, 240.0
# A frame whose brightest value is at most this shows nothing.
BLACK = 8
# Frames are compared by every so many pixels first.
COARSE = 16
# Header and decoder disagree on the number of frames when one of the two is smaller than this share of the other.
AGREEMENT = 0.95
# A video of at least this many frames of which no two differ has not been decoded.
STILL_FRAMES = 3
# A rate asked for may be above the video's by this factor.
RATE_TOLERANCE = 1.02


class Shot(NamedTuple):
    """One frame of a video.

    Attributes:
        number: Its place in the video, from 0.
        image: BGR `[H, W, 3]` uint8, or None where it was not asked for, has no picture or is black.
        seconds: Its time as the container says.
    """

    number: int
    image: NDArray[np.uint8] | None
    seconds: float


class Footage:
    """A video file as upright BGR frames.

    Args:
        path: The file.

    Attributes:
        path: The file.
        codec: The codec, such as `H.265 (hevc)`, or None if no header names it.
        fps: Frames a second as the header says or, if it says nothing possible, as the times of the frames say; None
            if neither is possible.
        promised: Number of frames as the header says, 0 if it says nothing.
        num_frames: The same, until the footage has been read to its end; then the number of frames that decoded.
        bad_frames: Number of black frames and of those without a picture at the last reading.
        times: Seconds of every frame at the last reading.
        frame_bytes: Size of one frame in memory.
        sideways: Degrees of a rotation that the header asks for and this OpenCV does not apply, else 0.

    Raises:
        SilhouetteError: The file cannot be opened, or no frame decodes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        cv2 = opencv()
        self.path, self.sideways = Path(path), 0
        if not self.path.is_file():
            got = "a folder" if self.path.is_dir() else "nothing there"
            raise SilhouetteError(f"{self.path}: expected a video file, got {got}")
        capture = self._open()
        self.codec = _codec(capture, self.path)
        self.fps = possible_rate(capture.get(cv2.CAP_PROP_FPS))
        self.promised = _promised(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames, self.bad_frames = self.promised, 0
        self.times: array[float] = array("d")
        ok, first = capture.read()
        capture.release()
        if not ok:
            raise SilhouetteError(f"{self.path}: expected a video with frames, got none that decodes{self._advice()}")
        self.frame_bytes = int(first.nbytes)

    def frames(self, wanted: Callable[[int], bool] = lambda index: True) -> Generator[Shot, None, None]:
        """Yield every frame of the video in order.

        Args:
            wanted: Tells by its index whether a frame is looked at; the others come without their image.

        Yields:
            The frames.

        Raises:
            SilhouetteError: All frames that were looked at are black or one and the same picture.
        """
        position = opencv().CAP_PROP_POS_MSEC
        capture = self._open()
        times: array[float] = array("d")
        before, looked_at, bad, changes = None, 0, 0, 0
        try:
            while capture.grab():
                times.append(capture.get(position) / 1000)
                image = None
                if wanted(len(times) - 1):
                    image = _picture(capture)
                    looked_at, bad = looked_at + 1, bad + (image is None)
                    changes += image is not None and before is not None and _differ(image, before)
                    before = image if image is not None else before
                yield Shot(len(times) - 1, image, times[-1])
        finally:
            capture.release()
        self.num_frames, self.bad_frames, self.times = len(times), bad, times
        self.fps = self.fps or _measured_rate(times)
        if bad == looked_at or (changes == 0 and looked_at >= STILL_FRAMES):
            raise SilhouetteError(self._without_pictures(looked_at, bad))

    def disagreement(self) -> str | None:
        """Compare the header's number of frames with those that decoded, after a reading; None if they agree."""
        decoded, promised = self.num_frames, self.promised
        if promised == 0 or min(decoded, promised) >= AGREEMENT * max(decoded, promised):
            return None
        if decoded < promised:
            return f"{decoded} of {promised} frames decode, the rest is left out"
        return f"{decoded} frames decode where the header promises {promised}; all are used"

    def sampled(self, fps: float) -> NDArray[np.intp]:
        """Choose the frames nearest to the times 0, 1 / fps, 2 / fps, ... after the first frame.

        Args:
            fps: Frames a second, at most the video's.

        Returns:
            Increasing indices of frames.

        Raises:
            ValueError: `fps` is no positive number, above the video's rate, or that is not known.
        """
        self.check_rate(fps)
        if self.fps is None:
            raise SilhouetteError(
                f"{self.path}: expected a video that says how many frames it has a second, to take {fps:g} of them; "
                f"its header does not"
            )
        times = np.asarray(self.times)
        if len(times) < 2 or not (np.diff(times) > 0).all():
            times = np.arange(self.num_frames) / self.fps
        grid = np.arange(times[0], times[-1] + 0.5 / fps, 1 / fps)
        middles = (times[:-1] + times[1:]) / 2
        return np.unique(np.searchsorted(middles, grid, side="right"))

    def check_rate(self, fps: float) -> None:
        """Refuse a rate at which frames cannot be taken, as far as the video's own rate is known.

        Args:
            fps: Frames a second.

        Raises:
            ValueError: `fps` is no positive number, or above the video's rate.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps: expected a positive number of frames a second, got {fps}")
        if self.fps is not None and fps > RATE_TOLERANCE * self.fps:
            raise SilhouetteError(f"{self.path}: fps: expected at most the video's {self.fps:g} a second, got {fps:g}")

    def _open(self) -> Any:
        with _name_for_opencv(self.path) as name:
            capture = opencv().VideoCapture(name)
        if not capture.isOpened():
            self.codec = codec_in(self.path)
            advice = self._advice() if self.codec else ""
            raise SilhouetteError(f"{self.path}: expected a video that OpenCV can open, got a file it cannot{advice}")
        self.sideways = _unapplied_rotation(capture)
        return capture

    def _advice(self) -> str:
        codec = f"; its codec, {self.codec}, may be unknown to this OpenCV" if self.codec else ""
        return f"{codec}; to convert it: {self._conversion()}"

    def _conversion(self, *options: str) -> str:
        return " ".join(["ffmpeg -i", self.path.name, *options, "-c:v libx264 -pix_fmt yuv420p converted.mp4"])

    def _without_pictures(self, looked_at: int, bad: int) -> str:
        got = "are black or have no picture" if bad == looked_at else "are the same picture"
        return (
            f"{self.path}: expected pictures that change, but all {looked_at} frames looked at {got}; OpenCV does this "
            f"with interlaced video (of recorders and camcorders); to convert it: {self._conversion('-vf yadif')}"
        )


@contextmanager
def _name_for_opencv(path: Path) -> Iterator[str]:
    """A name under which OpenCV can open a file: it ends the process at one that is no UTF-8."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="hstl-fast-") as folder:
            link = Path(folder, f"video{path.suffix}" if path.suffix.isascii() else "video")
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield name


def possible_rate(fps: float) -> float | None:
    """Return a rate that a camera can have, and None for others: NaN, infinity, 0, or more than 240 a second."""
    return float(fps) if math.isfinite(fps) and SLOWEST_FPS <= fps <= FASTEST_FPS else None


def _measured_rate(times: array[float]) -> float | None:
    span = times[-1] - times[0] if len(times) > 1 else math.nan
    return possible_rate((len(times) - 1) / span) if math.isfinite(span) and span > 0 else None


def _promised(count: float) -> int:
    return int(count) if math.isfinite(count) and 0 < count < 2**31 else 0


def _codec(capture: Any, path: Path) -> str | None:
    code = int(capture.get(opencv().CAP_PROP_FOURCC)) & 0xFFFFFFFF
    letters = code.to_bytes(4, "little").strip(b"\0 ")
    return named(letters.decode("ascii")) if letters.isalnum() else codec_in(path)


def _unapplied_rotation(capture: Any) -> int:
    """Ask the backend to turn frames upright; return the degrees that it does not apply."""
    cv2 = opencv()
    degrees = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    if not math.isfinite(degrees) or round(degrees) % 360 == 0 or capture.get(cv2.CAP_PROP_ORIENTATION_AUTO):
        return 0
    return 0 if capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1) else round(degrees) % 360


def _picture(capture: Any) -> NDArray[np.uint8] | None:
    """The frame grabbed last, or None where there is none or it is black."""
    ok, image = capture.retrieve()
    return None if not ok or image is None or is_black(image) else image


def is_black(image: NDArray[np.uint8]) -> bool:
    """Tell whether a frame shows nothing."""
    return bool(image[::COARSE, ::COARSE].max() <= BLACK and image.max() <= BLACK)


def _differ(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    coarse = np.s_[::COARSE, ::COARSE]
    return not (np.array_equal(image[coarse], other[coarse]) and np.array_equal(image, other))
