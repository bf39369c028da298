"""A caching allocator for the native operators' maps and workspaces.

Fresh memory costs more than it seems: the system clears it page by page at the first touch, 8 times longer than writing
it once more, and large blocks go back to the system whenever they are freed. So free blocks are kept for the next call,
in all never more than was asked for at once before (HSTL_FAST_MEMORY_CACHE=0: none are kept). They lie in huge pages
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


class Block:
    """Memory of at least `SMALLEST` bytes.

    Attributes:
        memory: Its bytes.
        address: The address of the first one.
        wanted: Bytes that were asked for when it was taken.
    """

    __slots__ = ("address", "memory", "wanted")

    def __init__(self, memory: np.ndarray) -> None:
        self.memory, self.address, self.wanted = memory, memory.ctypes.data, 0


class _Blocks:
    """Blocks of memory; `free` holds those that are not in use, the longest unused first.

    What is kept is measured by what was asked for, rounded up: were it measured by the blocks in use, which may be
    larger, it would grow with every mixture of sizes.

    As a context it is locked. The collector runs anywhere, so a block may be released by the same thread inside one: it
    waits in `released` for the end of the outermost.
    """

    def __init__(self) -> None:
        self.unlock()
        self.released: list[Block] = []
        self.free: OrderedDict[int, Block] = OrderedDict()
        self.free_bytes = self.used_bytes = self.wanted_bytes = self.most_bytes = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        while self._depth == 1 and self.released:
            self._keep(self.released.pop())
        self._depth -= 1
        self._lock.release()

    def unlock(self) -> None:
        """Replace the lock."""
        self._lock, self._depth = threading.RLock(), 0

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes."""
        wanted = _rounded(size)
        with self:
            block = self._found(size)
            if block is not None:
                self._count(block, wanted)
                return block
            self._shrink(max(self.most_bytes, self.wanted_bytes + wanted) - self.used_bytes - wanted)
        block = Block(_fresh(wanted))
        with self:
            self._count(block, wanted)
        return block

    def release(self, block: Block) -> None:
        """Keep a block that is not in use any more, or let go of it."""
        self.released.append(block)
        with self:
            pass

    def clear(self) -> None:
        """Free what is not in use, and forget how much was."""
        with self:
            self._shrink(0)
            self.most_bytes = self.wanted_bytes

    def _keep(self, block: Block) -> None:
        self.used_bytes -= len(block.memory)
        self.wanted_bytes -= block.wanted
        self.free[block.address] = block
        self.free_bytes += len(block.memory)
        self._shrink(self.most_bytes - self.used_bytes)

    def _count(self, block: Block, wanted: int) -> None:
        block.wanted = wanted
        self.used_bytes += len(block.memory)
        self.wanted_bytes += wanted
        self.most_bytes = max(self.most_bytes, self.wanted_bytes)
        self._shrink(self.most_bytes - self.used_bytes)

    def _found(self, wanted: int) -> Block | None:
        """The smallest free block that `wanted` bytes fit into without much waste."""
        found = None
        for block in self.free.values():
            if wanted <= len(block.memory) <= (MOST_WASTE * wanted if found is None else len(found.memory) - 1):
                found = block
        if found is not None:
            del self.free[found.address]
            self.free_bytes -= len(found.memory)
        return found

    def _shrink(self, limit: int) -> None:
        while self.free_bytes > max(limit, 0):
            _, block = self.free.popitem(last=False)
            self.free_bytes -= len(block.memory)


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


def _rounded(size: int) -> int:
    step = max(1, (1 << (size.bit_length() - 1)) // STEPS)
    return -(-size // step) * step
