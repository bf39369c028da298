"""Packed weights of ARME, kept in evaluation from one call to the next for as long as the weights are what they were.

Packing at every call would cost a few percent of a layer, and more in the Winograd domain, where packed weights are 5.3
to 9.3 times the size of the weights. They belong to the weights' tensor object and go with it. They are never saved,
copied or pickled. What was changed without PyTorch's notice (through `weight.data`) is noticed by a sample of values.
"""

import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast.ops import _native
from hstl_fast.ops._memory import memory

ENVIRONMENT_VARIABLE = "HSTL_FAST_PACKED_CACHE"
DEFAULT_MIB = 2048


class _Kept(NamedTuple):
    owner: "weakref.ref[Tensor]"
    state: tuple[Any, ...]
    sample: Tensor
    packed: Tensor


_kept: dict[tuple[int, int], _Kept] = {}
"""By the weights' id and the algorithm, the least recently used first. Every access is one step of the interpreter, so
threads need no lock, and a fork cannot copy a locked one."""


def packed_weights(
    weights: Tensor, dtype: torch.dtype, split: list[int], algorithm: int, *, transposed: bool = False, keep: bool
) -> Tensor:
    """The weights `[m, c_out, c_in, 3, 3, 3]` as the native convolution reads them; `keep`: they may be kept."""
    limit = _limit() if keep and not transposed and not weights.is_inference() else 0
    if not limit:
        return _packed(weights, dtype, split, algorithm, transposed)
    key = (id(weights), algorithm)
    kept = _kept.get(key)
    state, sample = _state(weights, split), _sample(weights)
    fresh = kept is not None and kept.owner() is weights and kept.state == state and torch.equal(kept.sample, sample)
    _kept.pop(key, None)
    if kept is None or not fresh:
        sample = sample.clone()  # before packing: what is changed meanwhile is noticed at the next call
        packed = _packed(weights, dtype, split, algorithm, False)
        kept = _Kept(weakref.ref(weights, _forgetting(key)), state, sample, packed)
    if kept.packed.nbytes <= limit:
        _make_room(limit - kept.packed.nbytes)
        _kept[key] = kept  # last: the most recently used
    return kept.packed


def clear_packed() -> None:
    """Free the packed weights that evaluation keeps; the next call packs again.

    Call it after values were changed behind PyTorch's back, through `weight.data` or a NumPy array: only a sample of
    them is looked at. And before parameters are swapped (`torch.utils.swap_tensors`), which weak references forbid.
    They take 5.3 to 9.3 times the memory of the convolutions' weights in the Winograd domain, once otherwise, and
    at most HSTL_FAST_PACKED_CACHE MiB in all (2048 unless set; 0: nothing is kept).
    """
    _kept.clear()


def kept_bytes() -> int:
    """Memory of the packed weights that are kept."""
    return sum(kept.packed.nbytes for kept in list(_kept.values()))


def _limit() -> int:
    """Bytes that may be kept."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not text:
        return DEFAULT_MIB << 20
    if not text.isdecimal():
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be a number of MiB (0: keep nothing), got {text!r}")
    return int(text) << 20


def _make_room(limit: int) -> None:
    """Forget the least recently used until at most `limit` bytes are kept."""
    for key in list(_kept):
        if kept_bytes() <= limit:
            return
        _kept.pop(key, None)


def _forgetting(key: tuple[int, int]) -> Callable[[object], object]:
    """What is called when the weights are gone; at the interpreter's end this module may be gone before."""
    store = _kept
    return lambda _: store.pop(key, None)


def _state(weights: Tensor, split: list[int]) -> tuple[Any, ...]:
    """What changes with the values, the memory or the meaning of `weights`, as far as PyTorch notices."""
    place = (weights.data_ptr(), weights.dtype, weights.shape, weights.stride())
    return (weights._version, *place, tuple(split), _native.require_cpu().instruction_set())


def _sample(weights: Tensor) -> Tensor:
    """A value of nearly every output channel of every region, of one input channel and tap after another."""
    return weights.detach().reshape(-1)[:: 27 * weights.shape[2] + 1]


def _packed(weights: Tensor, dtype: torch.dtype, split: list[int], algorithm: int, transposed: bool) -> Tensor:
    native, dense = _native.require_cpu(), weights.detach().to(dtype).contiguous()
    _, c_out, c_in = weights.shape[:3]
    sizes = (split, c_in, c_out, algorithm, transposed, dtype.itemsize)
    packed = memory(native.arme_packed_size(*sizes))
    native.arme_pack(packed.data_ptr(), dense.data_ptr(), *sizes, torch.get_num_threads())
    return packed
