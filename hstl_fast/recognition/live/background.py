"""The background of a camera that goes on for hours: learnt again and again from frames of the last minutes."""

from __future__ import annotations

import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteWarning
from hstl_fast.silhouettes.video.camera import small
from hstl_fast.silhouettes.video.foreground import Background, Foreground, Learnt
from hstl_fast.silhouettes.video.stages import FLOODED, moving_camera

Picture = NDArray[np.uint8]
# A background is learnt from at most so many frames and bytes.
SAMPLES, SAMPLE_BYTES = 64, 128 * 2**20
# Seconds between two of them: at first, and at most.
CLOSEST, FARTHEST = 0.1, 1.6
# One pair of neighbours is compared for every so many of them.
PAIR_SPACING = 5
# Seconds of footage before the first background is learnt; each further one waits twice as long, up to the second
# number.
FIRST, LONGEST = 2.0, 30.0
# Seconds without a usable background after which everything seen before is forgotten: the light was switched on, or
# somebody turned the camera.
PATIENCE = 1.0
# The share of foreground is measured on every so many pixels.
COARSE = 4


class RunningBackground:
    """A `Background` that follows the camera, with bounded memory.

    The first background is learnt from two seconds of footage, the next from four, and so on up to the last minute or
    two, of which frames far apart are held. Somebody who stands still for a minute thus becomes background, and no
    sooner. A frame never changes the background that serves it, so that the masks of somebody who comes slowly are as
    good as those of others.

    Args:
        min_height: Least height of a body, in pixels.
        waits: Whether a frame waits while a background is learnt, so that the same frames give the same masks; else it
            is learnt beside, and the one before serves meanwhile.

    Attributes:
        learnt: Number of backgrounds so far.
    """

    def __init__(self, min_height: int, waits: bool) -> None:
        self.learnt = 0
        self._min_height, self._waits = min_height, waits
        self._executor = ThreadPoolExecutor(1, "hstl-fast background")
        self._learning: Future[Background] | None = None
        self._background: Background | None = None
        self._warned = False
        self._begins, self._latest = True, 0.0

    def foreground(self, frame: Picture, seconds: float) -> Foreground | None:
        """Compute the foreground of the next frame.

        Args:
            frame: BGR `[H, W, 3]` uint8, which is held for a while; all frames have one size.
            seconds: Its time.

        Returns:
            The foreground, or None until the first background is learnt.
        """
        if self._begins or seconds < self._latest:
            self._start(seconds)
        self._latest = seconds
        self._hold(frame, seconds)
        self._learn(seconds)
        if self._background is None:
            return None
        unregistered = self._background.unregistered
        seen = self._background.foreground(frame)
        lost = self._background.unregistered > unregistered or seen.mask[::COARSE, ::COARSE].mean() > FLOODED
        self._notice(lost, seconds)
        return seen

    def close(self) -> None:
        """End the learning; a background that is being learnt is given up, and not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self, seconds: float) -> None:
        """Begin to learn as if these were the first frames; a background that is there serves until then."""
        self._began = self._latest = seconds
        self._due = seconds + FIRST
        self._samples: deque[tuple[float, Picture]] = deque()
        self._pairs: deque[tuple[Picture, Picture]] = deque(maxlen=SAMPLES // PAIR_SPACING)
        self._spacing, self._count = CLOSEST, 0
        self._first_of_pair: Picture | None = None
        self._lost_since: float | None = None
        self._begins, self._starts_again = False, self._background is not None

    def _hold(self, frame: Picture, seconds: float) -> None:
        if self._first_of_pair is not None:
            self._pairs.append((self._first_of_pair, small(frame)))
            self._first_of_pair = None
        if self._samples and seconds < self._samples[-1][0] + self._spacing:
            return
        self._samples.append((seconds, frame))
        if self._count % PAIR_SPACING == 0:
            self._first_of_pair = small(frame)
        self._count += 1
        if len(self._samples) > max(8, min(SAMPLES, SAMPLE_BYTES // frame.nbytes)):
            if self._spacing < FARTHEST:
                self._spacing *= 2
                self._samples = deque(list(self._samples)[::2])
            else:
                self._samples.popleft()

    def _learn(self, seconds: float) -> None:
        if self._learning is None and seconds >= self._due:
            learnt = Learnt([picture for _, picture in self._samples], list(self._pairs))
            self._learning = self._executor.submit(Background, learnt, self._min_height)
            self._due = seconds + min(seconds - self._began, LONGEST)
        if self._learning is not None and (self._waits or self._learning.done()):
            self._background, self._learning = self._learning.result(), None
            self.learnt += 1
            self._starts_again = False
            self._warn(self._background.camera.moves)

    def _warn(self, moves: float) -> None:
        if moves and not self._warned:
            self._warned = True
            warnings.warn(moving_camera(moves), SilhouetteWarning, stacklevel=2)

    def _notice(self, lost: bool, seconds: float) -> None:
        """Begin anew where the background has been of no use for a while."""
        if not lost or self._starts_again:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = seconds
        elif seconds - self._lost_since >= PATIENCE:
            self._start(seconds)
