"""Data sets in memory, for tests of what reads them."""

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.io import Reading
from hstl_fast.silhouettes.left_out import LeftOut


@functools.cache
def drawn(number: int, frames: int) -> np.ndarray:
    """Silhouettes [frames, 64, 64] uint8 of a box that moves and has a few grey dots, none like another."""
    draw = np.random.default_rng(number)
    silhouettes = np.zeros((frames, 64, 64), np.uint8)
    for t in range(frames):
        left = 10 + (number + t) % 30
        silhouettes[t, 4:60, left : left + 12] = 255
        silhouettes[t, draw.integers(64, size=12), draw.integers(64, size=12)] = draw.integers(256, size=12)
    silhouettes.setflags(write=False)
    return silhouettes


class Drawn(Sequences):
    """Sequences of 1 to 50 frames.

    Args:
        count: Number of sequences.
        unreadable: Numbers of those that cannot be read.
        stop_at: Number of the one at which reading stops with an ImportError.
        delay: Seconds that reading one takes.
        pids: A folder in which every process that reads leaves a file of its number.
    """

    def __init__(
        self,
        count: int,
        *,
        unreadable: Sequence[int] = (),
        stop_at: int | None = None,
        delay: float = 0,
        pids: Path | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        names = [(f"{k // 4:03}", f"nm-{k // 2 % 2 + 1:02}", f"{k % 2 * 90:03}") for k in range(count)]
        super().__init__(
            [Item(*each, "/".join(each)) for each in names],
            source="memory",
            layout="casia-b",
            partition=Partition(("000", "001"), ("002",), ("002-nm-01-000",)),
            left_out=left_out,
            notes=["a note"],
        )
        self._unreadable, self._stop_at, self._delay, self._pids = set(unreadable), stop_at, delay, pids

    def reading(self, index: int) -> Reading:
        if self._pids is not None:
            (self._pids / str(os.getpid())).touch()
        time.sleep(self._delay)
        if index == self._stop_at:
            raise ImportError("the reader is not installed")
        if index in self._unreadable:
            raise SilhouetteError(f"file-{index}.pkl: expected an array, got none")
        left_out = (LeftOut(f"file-{index}.pkl", "blank frames", "2 of 9"),) if index % 5 == 3 else ()
        return Reading(drawn(index, 1 + index * 7 % 50), left_out)


class Given(Drawn):
    """Sequences whose silhouettes are given, whatever they are."""

    def __init__(self, silhouettes: Sequence[np.ndarray]) -> None:
        super().__init__(len(silhouettes))
        self._silhouettes = silhouettes

    def reading(self, index: int) -> Reading:
        return Reading(self._silhouettes[index])
