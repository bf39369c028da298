"""Huge pages for memory that is read from one end to the other at every call, such as weights.

With small pages a processor waits for translations of addresses: reading 79 MB took twice the time.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable

from torch import Tensor

HUGE_PAGE = 2 << 20


def prefer_huge_pages(x: Tensor) -> None:
    """Ask the system for huge pages under a tensor, where it has any.

    It helps where the tensor's memory has not been written yet. Nothing but speed depends on it, and failures are
    passed over.

    Args:
        x: A new tensor; one that is not on the CPU is left alone.
    """
    if type(x) is not Tensor or x.device.type != "cpu":
        return
    begin = -(-x.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    end = (x.data_ptr() + x.nbytes) // HUGE_PAGE * HUGE_PAGE
    if begin < end:
        madvise(begin, end - begin, "MADV_HUGEPAGE")


def madvise(address: int, size: int, advice: str) -> None:
    """Tell the system how memory will be used, where it has huge pages; failures are passed over.

    Args:
        address: The first byte, at a page.
        size: Whole pages, in bytes.
        advice: The name of the advice in `mmap`.
    """
    advise = _advise()
    if advise is not None:
        advise(ctypes.c_void_p(address), ctypes.c_size_t(size), getattr(mmap, advice))


@functools.cache
def _advise() -> Callable[..., int] | None:
    """The system's function madvise; None where there is none, or no huge pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        return ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
