"""Pages of memory-mapped arrays: asked for in good time, and given back when they have been used."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MappedRows:
    """The rows of an array that may be a memory map.

    What a process has read of a file counts as its memory until the system wants it back. Where an array is a
    read-only `numpy.memmap`, or a view of one, its pages can be given back at once; the file stays in the system's
    cache. For every other array nothing is done.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._row_bytes = array.strides[0] if array.ndim and array.flags.c_contiguous else 0
        self._map = _read_only_map(array) if self._row_bytes else None
        self._start = 0
        if self._map is not None:
            self._start = _address(array) - _address(np.frombuffer(self._map, np.uint8))

    def will_need(self, first: int, end: int) -> None:
        """Let the system begin to read some rows.

        Args:
            first: The first row.
            end: The row after the last.
        """
        self._advise("MADV_WILLNEED", first, end)

    def release(self, first: int, end: int) -> None:
        """Give the pages of some rows back; who reads them again gets them again.

        Args:
            first: The first row.
            end: The row after the last.
        """
        self._advise("MADV_DONTNEED", first, end)

    def _advise(self, advice: str, first: int, end: int) -> None:
        option = getattr(mmap, advice, None)
        if self._map is None or option is None or end <= first:
            return
        start = self._start + first * self._row_bytes
        begin = start - start % mmap.PAGESIZE
        self._map.madvise(option, begin, min(self._start + end * self._row_bytes, len(self._map)) - begin)


def _read_only_map(array: NDArray[Any]) -> mmap.mmap | None:
    """The map below an array; None where it may be written, as giving pages back would lose what was written."""
    below: Any = array
    while isinstance(below, np.ndarray):
        owner: Any = below.base
        if isinstance(below, np.memmap) and isinstance(owner, mmap.mmap):
            return owner if below.mode == "r" else None
        below = owner
    return None


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
