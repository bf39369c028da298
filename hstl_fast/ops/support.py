"""The support of a feature map: where it may be non-zero, grown layer by layer from the silhouettes'.

All convolutions are without bias and LeakyReLU(0) = 0, so that outside its support a map is exactly 0, and what lies
there needs no arithmetic, forward or backward. The support corresponds to the active sites of a sparse convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hstl_fast._torch_private import under_transforms
from hstl_fast.ops._library import LIBRARY, define
from hstl_fast.reference import fta_lengths, grow_support

define("grow_support(Tensor support, int[] split, SymInt[] seq_lens, str backend) -> Tensor")
define("window_support(Tensor support, SymInt[] seq_lens, str backend) -> Tensor")
define("max_pool_support(Tensor support, str backend) -> Tensor")


class Support(NamedTuple):
    """The supports of an operator, bool `[n, t, h, w]`, dense: `HSTL` hands them to its own layers.

    Attributes:
        x: The support of the input, which is exactly 0 outside.
        y: The support of the output, where that is a feature map.
        owns_gradient: Whether no code but layers of the same network sees the gradients of the operator's maps, so that
            the backward pass may overwrite them.
    """

    x: Tensor
    y: Tensor | None = None
    owns_gradient: bool = False


@torch.library.register_fake("hstl_fast::grow_support", lib=LIBRARY)
def _grow_fake(support: Tensor, split: list[int], seq_lens: list[int], backend: str) -> Tensor:
    return torch.empty_like(support, memory_format=torch.contiguous_format)


@torch.library.register_fake("hstl_fast::window_support", lib=LIBRARY)
def _window_fake(support: Tensor, seq_lens: list[int], backend: str) -> Tensor:
    n, t, h, w = support.shape
    return support.new_empty((n, sum(fta_lengths(seq_lens)) if seq_lens else t // 3, h, w))


@torch.library.register_fake("hstl_fast::max_pool_support", lib=LIBRARY)
def _max_pool_fake(support: Tensor, backend: str) -> Tensor:
    n, t, h, w = support.shape
    return support.new_empty((n, t, h // 2, w // 2))


def grown(
    support: Tensor, split: list[int], seq_lens: list[int], backend: str = "cpu", owns_gradient: bool = False
) -> Support:
    """Find the supports of an ARME layer: one position more in t, h and w, inside region and sequence.

    Args:
        support: Support of the layer's input, bool `[n, t, h, w]`.
        split: Rows of each region.
        seq_lens: Lengths of packed sequences, else empty.
        backend: The backend that grows it.
        owns_gradient: As for `Support`.

    Returns:
        The supports of input and output.
    """
    if under_transforms():  # vmap cannot follow the private operator
        return Support(support, grow_support(support, split, seq_lens or None))
    dense = support.contiguous()
    return Support(dense, torch.ops.hstl_fast.grow_support(dense, split, seq_lens, backend), owns_gradient)


def windowed(support: Tensor, seq_lens: list[int], backend: str = "cpu") -> Support:
    """Find the supports of an FTA layer: any of a window's five frames.

    Args:
        support: Support of the layer's input, bool `[n, t, h, w]`.
        seq_lens: Lengths of packed sequences, else empty.
        backend: The backend that computes it.

    Returns:
        The supports of input and output.
    """
    dense = support.contiguous()
    return Support(dense, torch.ops.hstl_fast.window_support(dense, seq_lens, backend))


def max_pooled(support: Tensor, backend: str = "cpu") -> Tensor:
    """Find the support of a 2x2 maximum.

    Args:
        support: Support of the map, bool `[n, t, h, w]`.
        backend: The backend that computes it.

    Returns:
        Support of the maximum, bool `[n, t, h // 2, w // 2]`.
    """
    smaller: Tensor = torch.ops.hstl_fast.max_pool_support(support, backend)
    return smaller


def of_input(support: Tensor | Support | None) -> Tensor | None:
    """The input's support, however it was given."""
    return support.x if isinstance(support, Support) else support


def masked(x: Tensor, support: Tensor) -> Tensor:
    """`x` `[n, c, t, h, w]` with 0 outside its support, whatever stands there."""
    return x.where(support[:, None], 0)


def check_zero_outside(x: Tensor, support: Tensor) -> None:
    """Raise AssertionError if `x` `[n, c, t, h, w]` is anything but 0 outside its support."""
    wrong = (x.detach() != 0) & ~support[:, None]
    assert not wrong.any(), f"{list(x.shape)} is not 0 outside its support, first at {wrong.nonzero()[0].tolist()}"
