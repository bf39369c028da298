"""Prepacked weights of ARME, cached in evaluation for as long as the weights are what they were.

Prepacking at every call would cost a few percent of a layer, and more in the Winograd domain, where prepacked weights
are 5.3 to 9.3 times the size of the weights. A cache entry belongs to the weights' tensor object and goes with it; it
is never saved, copied or pickled.

PyTorch does not notice every change of weights: not one through `weight.data`, a NumPy array, a fused optimiser,
another process or a raw pointer. So an entry is used only where a checksum over all bytes of the weights, computed at
that call, equals the checksum of the bytes that were prepacked.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast import environment
from hstl_fast._caches import register_cache
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.algorithm import DIRECT
from hstl_fast.backends.cpu.allocator import allocate
from hstl_fast.backends.cpu.checksum import checksums


class Request(NamedTuple):
    """Weights to lay out as the native convolution's forward reads them.

    Attributes:
        weights: The regions' weights `[m, c_out, c_in, 3, 3, 3]`.
        dtype: The type computed in.
        split: Rows of each region.
        algorithm: DIRECT or the frames of a Winograd tile.
    """

    weights: Tensor
    dtype: torch.dtype
    split: list[int]
    algorithm: int

    @property
    def key(self) -> tuple[int, int]:
        """The key of its cache entry."""
        return id(self.weights), self.algorithm

    def layout(self) -> tuple[Any, ...]:
        """Everything besides the weights' values that the prepacked weights follow from."""
        w, isa = self.weights, library.require_cpu().instruction_set()
        return w.dtype, w.shape, self.dtype, tuple(self.split), isa


class _Entry(NamedTuple):
    owner: weakref.ref[Tensor]
    layout: tuple[Any, ...]
    checksum: bytes
    prepacked: Tensor


# Entries by the weights' id and the algorithm, the least recently used first. Every access is one step of the
# interpreter, so threads need no lock, and a fork cannot copy a locked one.
_entries: dict[tuple[int, int], _Entry] = {}


def weights_of_call(request: Request, *, transposed: bool = False, cache: bool) -> tuple[Tensor, Tensor | None]:
    """Find what one call of the native convolution reads.

    What is not kept is prepacked by the call itself, one region after another in the same memory: that stays in the
    third-level cache, and a training step has no room for all regions.

    Args:
        request: The weights.
        transposed: Prepack for dgrad instead of forward.
        cache: Whether the prepacked weights may be kept for the next call; not transposed.

    Returns:
        The prepacked weights, as bytes, and None; or memory for one region's, and the weights to be prepacked.
    """
    if cache:
        return cached_weights([request])[0], None
    values = _values(request.weights)
    if request.algorithm == DIRECT:
        return _prepacked(request, values, transposed), None
    sizes = _prepacked_sizes(request._replace(split=request.split[:1]), values, transposed)
    return allocate(library.require_cpu().arme_prepacked_size(*sizes)), values.to(request.dtype)


def cached_weights(requests: Sequence[Request]) -> list[Tensor]:
    """Lay weights out as forward reads them, or take them from the cache where that holds the same values.

    Args:
        requests: The weights.

    Returns:
        The prepacked weights of each, as bytes.
    """
    limit = environment.packed_cache_bytes()
    if not limit:
        return [_prepacked(request, _values(request.weights), False) for request in requests]
    return [_renewed(*found, limit).prepacked for found in zip(requests, _fresh_entries(requests))]


def cached_bytes() -> int:
    """Memory of the prepacked weights that are cached."""
    return sum(entry.prepacked.nbytes for entry in list(_entries.values()))


register_cache("prepacked weights", cached_bytes, _entries.clear)


def _fresh_entries(requests: Sequence[Request]) -> list[_Entry | None]:
    """The entry of each that holds the values of now; None where there is none."""
    entries = [_entry_of(request) for request in requests]
    sums = iter(checksums([_values(request.weights) for request, entry in zip(requests, entries) if entry]))
    return [entry if entry and entry.checksum == next(sums) else None for entry in entries]


def _entry_of(request: Request) -> _Entry | None:
    """The entry of the same tensor and layout, whatever values it holds."""
    entry = _entries.get(request.key)
    same = entry is not None and entry.owner() is request.weights and entry.layout == request.layout()
    return entry if same else None


def _renewed(request: Request, entry: _Entry | None, limit: int) -> _Entry:
    """The entry, or a new one, as the most recently used; at most `limit` bytes are kept."""
    _entries.pop(request.key, None)
    if entry is None:
        # A copy is prepacked, so that the checksum is that of what is prepacked, whoever writes to the weights now.
        values = _values(request.weights).clone()
        owner = weakref.ref(request.weights, _forget(request.key))
        entry = _Entry(owner, request.layout(), checksums([values])[0], _prepacked(request, values, False))
    if entry.prepacked.nbytes <= limit:
        _make_room(limit - entry.prepacked.nbytes)
        _entries[request.key] = entry
    return entry


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


def _values(weights: Tensor) -> Tensor:
    """The weights' values in contiguous memory: their own, where that is contiguous."""
    return weights.detach().resolve_neg().contiguous()


def _prepacked(request: Request, values: Tensor, transposed: bool) -> Tensor:
    native, dense = library.require_cpu(), values.to(request.dtype)
    sizes = _prepacked_sizes(request, values, transposed)
    prepacked = allocate(native.arme_prepacked_size(*sizes))
    native.arme_prepack(prepacked.data_ptr(), dense.data_ptr(), *sizes, torch.get_num_threads())
    return prepacked


def _prepacked_sizes(request: Request, values: Tensor, transposed: bool) -> tuple[Any, ...]:
    _, c_out, c_in = values.shape[:3]  # the weights may have another shape by now, which another thread gave them
    return request.split, c_in, c_out, request.algorithm, transposed, request.dtype.itemsize
