"""A caching allocator for the native operators' maps and workspaces.

Fresh memory costs more than it seems: the system clears it page by page at the first touch, 8 times longer than writing
it once more, and large blocks go back to the system whenever they are freed. So free blocks are kept for the next call,
in all never more than were in use at once before (HSTL_FAST_MEMORY_CACHE=0: none are kept). They lie in huge pages
where the system has them: the tiles of a convolution touch hundreds of small ones.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hstl_fast import environment
from hstl_fast._caches import register_cache
from hstl_fast.backends.cpu.huge_pages import HUGE_PAGE

# Smaller blocks, in bytes, come fast enough from the C library and are not kept.
SMALLEST = 1 << 20
ALIGNMENT = 64
# A block may be so many times larger than what is asked for; a network's maps then settle on a few blocks.
MOST_WASTE = 4
# Sizes are rounded up to eighths of a power of two, so that maps of similar sizes use one another's blocks.
STEPS = 8


class _Blocks:
    """Blocks of memory; `free` holds those that are not in use, the longest unused first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a block may be released while another is taken: the collector runs anywhere
        self.free: OrderedDict[int, np.ndarray] = OrderedDict()
        self.free_bytes = self.used_bytes = self.most_bytes = 0

    def take(self, wanted: int) -> np.ndarray:
        """`wanted` bytes of a block, which is released when this array is gone."""
        with self.lock:
            block = self._found(wanted)
            size = _rounded(wanted) if block is None else len(block)
            self.used_bytes += size
            self.most_bytes = max(self.most_bytes, self.used_bytes)
            self._shrink(self.most_bytes - self.used_bytes)
        try:
            if block is None:
                block = _fresh(size)
        except MemoryError:
            with self.lock:
                self.used_bytes -= size
            raise
        view = block[:wanted]
        weakref.finalize(view, self._release, block).atexit = False
        return view

    def clear(self) -> None:
        """Free what is not in use, and forget how much was."""
        with self.lock:
            self._shrink(0)
            self.most_bytes = self.used_bytes

    def _found(self, wanted: int) -> np.ndarray | None:
        """The smallest free block that `wanted` bytes fit into without much waste."""
        fitting = [block for block in self.free.values() if wanted <= len(block) <= MOST_WASTE * wanted]
        if not fitting:
            return None
        block = min(fitting, key=len)
        del self.free[id(block)]
        self.free_bytes -= len(block)
        return block

    def _release(self, block: np.ndarray) -> None:
        with self.lock:
            self.used_bytes -= len(block)
            self.free[id(block)] = block
            self.free_bytes += len(block)
            self._shrink(self.most_bytes - self.used_bytes)

    def _shrink(self, limit: int) -> None:
        while self.free_bytes > limit:
            _, block = self.free.popitem(last=False)
            self.free_bytes -= len(block)


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
    _blocks.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def allocate(size: int) -> Tensor:
    """`size` uninitialised bytes, uint8, aligned to 64."""
    if size < SMALLEST or not environment.memory_cache():
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    return torch.from_numpy(_blocks.take(size))


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


def _rounded(size: int) -> int:
    step = max(1, (1 << (size.bit_length() - 1)) // STEPS)
    return -(-size // step) * step
