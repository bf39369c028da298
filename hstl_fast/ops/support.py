"""Where feature maps may be non-zero: one truth value per position, grown layer by layer from the silhouettes'.

All convolutions are without bias and LeakyReLU(0) = 0, so that outside its support a map is exactly 0, and what lies
there needs no arithmetic, forward or backward.
"""

import os
from typing import NamedTuple

import torch
from torch import Tensor

from hstl_fast.ops import _native
from hstl_fast.ops._shared import LIBRARY, constant_when_compiled, define, frames_of, implements, under_transforms
from hstl_fast.reference import fta_lengths, grow_support

DEBUG_VARIABLE = "HSTL_FAST_DEBUG"

define("grow_support(Tensor support, int[] split, SymInt[] seq_lens, str backend) -> Tensor")
define("window_support(Tensor support, SymInt[] seq_lens, str backend) -> Tensor")
define("halve_support(Tensor support, str backend) -> Tensor")


class Support(NamedTuple):
    """Of an operator whose input is exactly 0 outside; bool [n, t, h, w], dense."""

    x: Tensor
    """Of the input."""
    y: Tensor | None = None
    """Of the output, where that is a feature map."""


@torch.library.register_fake("hstl_fast::grow_support", lib=LIBRARY)
def _grow_fake(support: Tensor, split: list[int], seq_lens: list[int], backend: str) -> Tensor:
    return torch.empty_like(support, memory_format=torch.contiguous_format)


@torch.library.register_fake("hstl_fast::window_support", lib=LIBRARY)
def _window_fake(support: Tensor, seq_lens: list[int], backend: str) -> Tensor:
    n, t, h, w = support.shape
    return support.new_empty((n, sum(fta_lengths(seq_lens)) if seq_lens else t // 3, h, w))


@torch.library.register_fake("hstl_fast::halve_support", lib=LIBRARY)
def _halve_fake(support: Tensor, backend: str) -> Tensor:
    n, t, h, w = support.shape
    return support.new_empty((n, t, h // 2, w // 2))


@implements("grow_support", "cpu")
def _grow_cpu(support: Tensor, split: list[int], seq_lens: list[int]) -> Tensor:
    x = support.contiguous()
    y = torch.empty_like(x)
    lens, threads = _frames(x, seq_lens), torch.get_num_threads()
    _native.require_cpu().grow_support(y.data_ptr(), x.data_ptr(), lens, split, x.shape[3], threads)
    return y


@implements("window_support", "cpu")
def _window_cpu(support: Tensor, seq_lens: list[int]) -> Tensor:
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, sum(fta_lengths(seq_lens)) if seq_lens else t // 3, h, w))
    lens, threads = _frames(x, seq_lens), torch.get_num_threads()
    _native.require_cpu().window_support(y.data_ptr(), x.data_ptr(), lens, h, w, threads)
    return y


@implements("halve_support", "cpu")
def _halve_cpu(support: Tensor) -> Tensor:
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, t, h // 2, w // 2))
    _native.require_cpu().halve_support(y.data_ptr(), x.data_ptr(), n * t, h, w)
    return y


@implements("grow_support", "triton")
def _grow_triton(support: Tensor, split: list[int], seq_lens: list[int]) -> Tensor:
    from hstl_fast.triton_kernels import support as kernels

    return kernels.grow(support, split, seq_lens)


@implements("window_support", "triton")
def _window_triton(support: Tensor, seq_lens: list[int]) -> Tensor:
    from hstl_fast.triton_kernels import support as kernels

    return kernels.window(support, seq_lens)


@implements("halve_support", "triton")
def _halve_triton(support: Tensor) -> Tensor:
    from hstl_fast.triton_kernels import support as kernels

    return kernels.halve(support)


def _frames(support: Tensor, seq_lens: list[int]) -> list[int]:
    return frames_of(support[:, None], seq_lens)


def grown(support: Tensor, split: list[int], seq_lens: list[int], backend: str = "cpu") -> Support:
    """Of a convolution whose input has this support: one position more in t, h and w, inside region and sequence."""
    if under_transforms():  # vmap cannot follow the private operator
        return Support(support, grow_support(support, split, seq_lens or None))
    dense = support.contiguous()
    return Support(dense, torch.ops.hstl_fast.grow_support(dense, split, seq_lens, backend))


def windowed(support: Tensor, seq_lens: list[int], backend: str = "cpu") -> Support:
    """Of FTA whose input has this support: any of a window's five frames."""
    dense = support.contiguous()
    return Support(dense, torch.ops.hstl_fast.window_support(dense, seq_lens, backend))


def halved(support: Tensor, backend: str = "cpu") -> Tensor:
    """Of the 2x2 maximum of a map with this support."""
    smaller: Tensor = torch.ops.hstl_fast.halve_support(support, backend)
    return smaller


def of_input(support: Tensor | Support | None) -> Tensor | None:
    """What a caller says of the input."""
    return support.x if isinstance(support, Support) else support


def masked(x: Tensor, support: Tensor) -> Tensor:
    """`x` [n, c, t, h, w] with 0 outside its support, whatever stands there."""
    return x.where(support[:, None], 0)


@constant_when_compiled
def debugging() -> bool:
    """Whether HSTL_FAST_DEBUG asks for checks that cost time."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def check_zero_outside(x: Tensor, support: Tensor) -> None:
    """Raise AssertionError if `x` [n, c, t, h, w] is anything but 0 outside its support."""
    wrong = (x.detach() != 0) & ~support[:, None]
    assert not wrong.any(), f"{list(x.shape)} is not 0 outside its support, first at {wrong.nonzero()[0].tolist()}"
