"""FTA on the native CPU backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hstl_fast.backends import implements
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.allocator import allocate_map
from hstl_fast.backends.cpu.calls import Memory, NativeCallWithWorkspace, contiguous
from hstl_fast.layout import computing_dtype, dense, frames_of
from hstl_fast.reference import fta_lengths


class Sizes(NamedTuple):
    """Frames of each sequence, rows of each region, columns and channels."""

    seq_lens: list[int]
    split: list[int]
    w: int
    c: int
    itemsize: int
    threads: int


@dataclass(slots=True, eq=False)
class ForwardCall(NativeCallWithWorkspace):
    """The gated maxima, and the regions' means from which the gates follow."""

    name: ClassVar[str] = "fta_forward"
    y: Memory
    means: Memory
    x: Memory
    weights: Memory
    biases: Memory
    workspace: Memory | None
    sizes: Sizes
    y_support: Memory | None
    # Outside it nothing of `x` is read.
    x_support: Memory | None = None

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        size: int = library.require_cpu().fta_workspace(*self.sizes)
        return size


@dataclass(slots=True, eq=False)
class BackwardCall(NativeCallWithWorkspace):
    """The gradients of the map, the gates' weights and their biases."""

    name: ClassVar[str] = "fta_backward"
    gx: Tensor
    gweights: Tensor
    gbiases: Tensor
    grad: Tensor
    x: Tensor
    means: Tensor
    weights: Tensor
    biases: Tensor
    workspace: Memory | None
    sizes: Sizes
    y_support: Tensor | None

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        size: int = library.require_cpu().fta_workspace(*self.sizes)
        return size


@implements("fta_forward", "cpu")
def forward(
    x: Tensor, weights: Tensor, biases: Tensor, y_support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor]:
    """The output `[n, c, t', h, w]` and the regions' means `[windows, m, c]`."""
    dtype = computing_dtype(x.dtype)
    x_, weights_, biases_ = dense(x, dtype), weights.to(dtype).contiguous(), biases.to(dtype).contiguous()
    n, c, t, h, w = x.shape
    frames = sum(fta_lengths(seq_lens)) if seq_lens else t // 3
    y = allocate_map(x_, n, c, frames, h, w)
    means = torch.empty((n * frames, len(split), c), dtype=dtype)
    ForwardCall(y, means, x_, weights_, biases_, None, _sizes(x_, split, seq_lens), contiguous(y_support)).run()
    return y.to(x.dtype), means


@implements("fta_backward", "cpu")
def backward(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `x`, weights and biases."""
    dtype = means.dtype
    g, x_ = dense(grad, dtype), dense(x, dtype)
    weights_, biases_ = weights.to(dtype).contiguous(), biases.to(dtype).contiguous()
    gx = allocate_map(x_, *x.shape)
    gweights, gbiases = torch.empty_like(weights_), torch.empty_like(biases_)
    gradients, inputs = (gx, gweights, gbiases), (g, x_, means, weights_, biases_)
    BackwardCall(*gradients, *inputs, None, _sizes(x_, split, seq_lens), contiguous(y_support)).run()
    return gx.to(x.dtype), gweights.to(weights.dtype), gbiases.to(biases.dtype)


def _sizes(x: Tensor, split: list[int], seq_lens: list[int]) -> Sizes:
    lens = frames_of(x, seq_lens)
    return Sizes(lens, split, x.shape[4], x.shape[1], x.dtype.itemsize, torch.get_num_threads())
