"""Every cache of the package, by name: how much it holds, and how to empty it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Cache(NamedTuple):
    """A cache: `held_bytes()` is the memory it holds now, `clear()` lets go of it."""

    held_bytes: Callable[[], int]
    clear: Callable[[], None]


_caches: dict[str, Cache] = {}


def register_cache(name: str, held_bytes: Callable[[], int], clear: Callable[[], None]) -> None:
    """Count a cache among those that :func:`clear_caches` empties and `hstl-fast info` lists."""
    _caches[name] = Cache(held_bytes, clear)


def cache_bytes() -> dict[str, int]:
    """The memory that each cache holds now, in bytes, by the cache's name."""
    return {name: cache.held_bytes() for name, cache in _caches.items()}


def clear_caches() -> None:
    """Free everything that the package keeps for the next call; the next call makes it again.

    These are the prepacked weights and the execution plans of evaluation, the free memory of the native allocator, and
    on a GPU the tables of the kernels and the CUDA graphs of all models. No answer depends on it: what is kept is used
    only for weights whose bytes are still those that it was made from, and for networks that are what they were. Call
    it to free memory, and before parameters are swapped by `torch.utils.swap_tensors`, which the weak references of the
    cache forbid.
    """
    for cache in reversed(_caches.values()):  # the allocator, registered first, gets back what the others hold
        cache.clear()
