"""A caching allocator for the native operators' maps and workspaces.

Fresh memory costs more than it seems: the system clears it page by page at the first touch, 8 times longer than writing
it once more, and large blocks go back to the system whenever they are freed. So freed memory is kept for the next call,
in all hardly more than was asked for at once before (HSTL_FAST_MEMORY_CACHE=0: none is kept). It lies in huge pages
where the system has them: the tiles of a convolution touch hundreds of small ones.

Blocks are cut from segments, and free ranges grow together again. The first calls make a segment for each block that
finds no room. As soon as nothing is in use, one segment takes the place of all: it has room for every block of a
network's next step, and hardly a byte between them is lost.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hstl_fast import environment
from hstl_fast._caches import register_cache
from hstl_fast.backends.cpu.huge_pages import HUGE_PAGE, madvise

# Smaller blocks, in bytes, come fast enough from the C library and are not kept.
SMALLEST = 1 << 20
ALIGNMENT = 64
# Blocks begin at pages and end at pages.
PAGE = max(4096, mmap.PAGESIZE)
# The segment for everything is larger by this part of it, so that a block fits in whatever order others are freed. What
# is never touched takes no memory.
RESERVE = 32


class _Segment:
    """Memory of the system in one piece. `free` holds the length of each range that is not in use, by its first byte.

    Ranges that were given back to the system while others were in use are forgotten; `bytes` is what is left.
    """

    __slots__ = ("address", "bytes", "free", "memory")

    def __init__(self, memory: np.ndarray) -> None:
        self.memory, self.address, self.bytes = memory, memory.ctypes.data, len(memory)
        self.free = {0: self.bytes}

    def is_free(self) -> bool:
        """Whether nothing of it is in use."""
        return sum(self.free.values()) == self.bytes

    def candidates(self, size: int) -> list[tuple[bool, int, int]]:
        """The ranges that `size` bytes fit into; the best one is the smallest. The one at the end is kept for last."""
        end = len(self.memory)
        return [(begin + length == end, length, begin) for begin, length in self.free.items() if length >= size]

    def cut(self, begin: int, size: int) -> None:
        """Take the first bytes of the free range at `begin`."""
        length = self.free.pop(begin)
        if length > size:
            self.free[begin + size] = length - size

    def put(self, begin: int, size: int) -> None:
        """Free a range, which becomes one with those beside it."""
        size += self.free.pop(begin + size, 0)
        for before, length in self.free.items():
            if before + length == begin:
                self.free[before] += size
                return
        self.free[begin] = size

    def give_back(self) -> None:
        """Give what is free back to the system, and forget it."""
        for begin, length in self.free.items():
            madvise(self.address + begin, length, "MADV_DONTNEED")
        self.bytes -= sum(self.free.values())
        self.free.clear()


class Block:
    """Memory of at least `SMALLEST` bytes, a part of a segment.

    Attributes:
        memory: Its bytes.
        address: The address of the first one.
    """

    __slots__ = ("address", "begin", "memory", "segment")

    def __init__(self, segment: _Segment, begin: int, size: int) -> None:
        self.segment, self.begin = segment, begin
        self.memory, self.address = segment.memory[begin : begin + size], segment.address + begin


class _Blocks:
    """Blocks of memory, cut from `segments`, of which the oldest come first.

    As a context it is locked. The collector runs anywhere, so a block may be released by the same thread inside one: it
    waits in `released` for the end of the outermost.
    """

    def __init__(self) -> None:
        self.unlock()
        self.released: list[Block] = []
        self.segments: list[_Segment] = []
        self.used_bytes = self.most_bytes = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        while self._depth == 1 and self.released:
            self._free(self.released.pop())
        self._depth -= 1
        self._lock.release()

    @property
    def free_bytes(self) -> int:
        """Memory that is kept for the next call."""
        with self:
            return self._bytes() - self.used_bytes

    def unlock(self) -> None:
        """Replace the lock."""
        self._lock, self._depth = threading.RLock(), 0

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes."""
        wanted = -(-size // PAGE) * PAGE
        with self:
            if not self.used_bytes and len(self.segments) > 1:
                self.segments.clear()
            block = self._cut(wanted)
            if block is not None:
                return block
            self._shrink(max(self._limit(), self.used_bytes + wanted) - wanted)
            fresh = wanted if self.segments else max(wanted, self._limit())
        segment = _Segment(_fresh_or_less(fresh, wanted))
        with self:
            self.segments.append(segment)
            block = self._cut(wanted)
            assert block is not None
            return block

    def release(self, block: Block) -> None:
        """Keep a block that is not in use any more, or let go of it."""
        self.released.append(block)
        with self:
            pass

    def clear(self) -> None:
        """Free what is not in use, and forget how much was."""
        with self:
            self.segments = [segment for segment in self.segments if not segment.is_free()]
            for segment in self.segments:
                segment.give_back()
            self.most_bytes = self.used_bytes

    def _bytes(self) -> int:
        return sum(segment.bytes for segment in self.segments)

    def _limit(self) -> int:
        """The most bytes of all segments, whole pages, as long as blocks are found in them."""
        return self.most_bytes + self.most_bytes // RESERVE // PAGE * PAGE

    def _cut(self, wanted: int) -> Block | None:
        """The smallest range that `wanted` bytes fit into, and of equal ones the first."""
        best, place = None, None
        for segment in self.segments:
            for candidate in segment.candidates(wanted):
                if best is None or candidate < best:
                    best, place = candidate, segment
        if best is None or place is None:
            return None
        place.cut(best[2], wanted)
        self.used_bytes += wanted
        self.most_bytes = max(self.most_bytes, self.used_bytes)
        return Block(place, best[2], wanted)

    def _free(self, block: Block) -> None:
        size = len(block.memory)
        block.segment.put(block.begin, size)
        self.used_bytes -= size
        self._shrink(self._limit())

    def _shrink(self, limit: int) -> None:
        """Give free memory back until `limit` bytes are left, if there is enough: whole segments before parts."""
        for segment in sorted(self.segments, key=lambda segment: not segment.is_free()):
            if self._bytes() <= limit:
                return
            if segment.is_free():
                self.segments.remove(segment)
            else:
                segment.give_back()


def _fresh_or_less(size: int, least: int) -> np.ndarray:
    """`size` bytes from the system, or `least` where it has not so many any more."""
    try:
        return _fresh(size)
    except MemoryError:
        if size == least:
            raise
        return _fresh(least)


def _fresh(size: int) -> np.ndarray:
    """`size` bytes from the system."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        block = np.empty(size + ALIGNMENT, np.uint8)
        return _aligned(block, size, ALIGNMENT)
    try:
        pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot allocate {size} bytes ({error.strerror})") from None
    with contextlib.suppress(OSError):  # a system without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return _aligned(np.frombuffer(pages, np.uint8), size, HUGE_PAGE)


def _aligned(block: np.ndarray, size: int, alignment: int) -> np.ndarray:
    start = -block.ctypes.data % alignment
    return block[start : start + size]


_blocks = _Blocks()


def _unlock() -> None:
    """Replace the lock in a forked child: the thread that held it may exist in the parent only."""
    _blocks.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def allocate(size: int) -> Tensor:
    """`size` uninitialised bytes, uint8, aligned to 64."""
    if size < SMALLEST or not environment.memory_cache():
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    block = _blocks.take(size)
    view = block.memory[:size]
    weakref.finalize(view, _blocks.release, block).atexit = False
    return torch.from_numpy(view)


class Borrowed:
    """A context with uninitialised bytes, aligned to 64, which costs less than a tensor of `allocate`.

    Args:
        size: How many bytes.
    """

    __slots__ = ("_memory", "_size", "address")

    def __init__(self, size: int) -> None:
        self._size, self.address = size, 0
        self._memory: Block | Tensor | None = None

    def __enter__(self) -> Borrowed:
        if self._size >= SMALLEST and environment.memory_cache():
            self._memory = block = _blocks.take(self._size)
            self.address = block.address
        else:
            self._memory = memory = torch.empty(self._size, dtype=torch.uint8, device="cpu")
            self.address = memory.data_ptr()
        return self

    def __exit__(self, *_: object) -> None:
        memory, self._memory = self._memory, None
        if isinstance(memory, Block):
            _blocks.release(memory)


def allocate_map(like: Tensor, n: int, c: int, t: int, h: int, w: int) -> Tensor:
    """An uninitialised channels-last feature map `[n, c, t, h, w]` of like's type on the CPU."""
    return as_map(allocate(n * c * t * h * w * like.dtype.itemsize), like.dtype, n, c, t, h, w)


def as_map(block: Tensor, dtype: torch.dtype, n: int, c: int, t: int, h: int, w: int) -> Tensor:
    """The memory of a tensor as a channels-last feature map `[n, c, t, h, w]`, which is no view of it for torch."""
    y = torch.empty(0, dtype=dtype, device="cpu")
    return y.set_(block.untyped_storage(), 0, (n, c, t, h, w), (t * h * w * c, 1, h * w * c, w * c, c))


def allocate_tensor(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised contiguous tensor on the CPU."""
    block = allocate(math.prod(shape) * dtype.itemsize)
    strides = torch.empty(shape, device="meta").stride()
    return torch.empty(0, dtype=dtype, device="cpu").set_(block.untyped_storage(), 0, tuple(shape), strides)


def free_bytes() -> int:
    """Memory that is kept for the next call."""
    return _blocks.free_bytes


register_cache("free memory of maps and workspaces", free_bytes, _blocks.clear)
