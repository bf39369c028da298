"""Prepacked weights of ARME, cached in evaluation for as long as the weights are what they were.

Prepacking at every call would cost a few percent of a layer, and more in the Winograd domain, where prepacked weights
are 5.3 to 9.3 times the size of the weights. A cache entry belongs to the weights' tensor object and goes with it; it
is never saved, copied or pickled. A change behind PyTorch's back (through `weight.data`) is noticed by a sample of
values.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast import environment
from hstl_fast._caches import register_cache
from hstl_fast._torch_private import version_of
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.allocator import allocate


class _Entry(NamedTuple):
    owner: weakref.ref[Tensor]
    state: tuple[Any, ...]
    sample: Tensor
    prepacked: Tensor


# Entries by the weights' id and the algorithm, the least recently used first. Every access is one step of the
# interpreter, so threads need no lock, and a fork cannot copy a locked one.
_entries: dict[tuple[int, int], _Entry] = {}


def prepacked_weights(
    weights: Tensor, dtype: torch.dtype, split: list[int], algorithm: int, *, transposed: bool = False, cache: bool
) -> Tensor:
    """Lay weights out as the native convolution reads them.

    Args:
        weights: The regions' weights `[m, c_out, c_in, 3, 3, 3]`.
        dtype: The type computed in.
        split: Rows of each region.
        algorithm: DIRECT or the frames of a Winograd tile.
        transposed: Prepack for dgrad instead of forward.
        cache: Whether the result may be kept for the next call.

    Returns:
        The prepacked weights, as bytes.
    """
    limit = environment.packed_cache_bytes() if cache and not transposed and not weights.is_inference() else 0
    if not limit:
        return _prepacked(weights, dtype, split, algorithm, transposed)
    key = (id(weights), algorithm)
    entry = _entries.get(key)
    state, sample = _state(weights, split), _sample(weights)
    fresh = entry is not None and entry.owner() is weights and entry.state == state
    fresh = fresh and entry is not None and torch.equal(entry.sample, sample)
    _entries.pop(key, None)
    if entry is None or not fresh:
        sample = sample.clone()  # before prepacking: what is changed meanwhile is noticed at the next call
        prepacked = _prepacked(weights, dtype, split, algorithm, False)
        entry = _Entry(weakref.ref(weights, _forget(key)), state, sample, prepacked)
    if entry.prepacked.nbytes <= limit:
        _make_room(limit - entry.prepacked.nbytes)
        _entries[key] = entry  # last: the most recently used
    return entry.prepacked


def cached_bytes() -> int:
    """Memory of the prepacked weights that are cached."""
    return sum(entry.prepacked.nbytes for entry in list(_entries.values()))


register_cache("prepacked weights", cached_bytes, _entries.clear)


def _make_room(limit: int) -> None:
    """Forget the least recently used until at most `limit` bytes are cached."""
    for key in list(_entries):
        if cached_bytes() <= limit:
            return
        _entries.pop(key, None)


def _forget(key: tuple[int, int]) -> Callable[[object], object]:
    """A callback for the end of the weights; at the interpreter's end this module may be gone before."""
    entries = _entries
    return lambda _: entries.pop(key, None)


def _state(weights: Tensor, split: list[int]) -> tuple[Any, ...]:
    """Everything that changes with the values, the memory or the meaning of `weights`, as far as PyTorch notices."""
    place = (weights.data_ptr(), weights.dtype, weights.shape, weights.stride())
    return (version_of(weights), *place, tuple(split), library.require_cpu().instruction_set())


def _sample(weights: Tensor) -> Tensor:
    """A value of nearly every output channel of every region, of one input channel and tap after another."""
    return weights.detach().reshape(-1)[:: 27 * weights.shape[2] + 1]


def _prepacked(weights: Tensor, dtype: torch.dtype, split: list[int], algorithm: int, transposed: bool) -> Tensor:
    native, dense = library.require_cpu(), weights.detach().to(dtype).contiguous()
    _, c_out, c_in = weights.shape[:3]
    sizes = (split, c_in, c_out, algorithm, transposed, dtype.itemsize)
    prepacked = allocate(native.arme_prepacked_size(*sizes))
    native.arme_prepack(prepacked.data_ptr(), dense.data_ptr(), *sizes, torch.get_num_threads())
    return prepacked
