"""The 2x2 spatial maximum of every frame: torch's operator, not one of ours, so no backend has a kernel for it here.

It is in this folder because it passes the ownership of gradients on (see _ownership.py). An execution plan computes the
same maximum by backends/cpu/max_pool.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hstl_fast.layout import channels_last
from hstl_fast.ops._autograd import first_derivative_only
from hstl_fast.ops._ownership import OwningFunction, notices_inspection

_GEOMETRY: tuple[list[int], list[int], list[int], list[int], bool] = ([2, 2], [2, 2], [0, 0], [1, 1], False)


@notices_inspection
class _MaxPool(OwningFunction):
    """One node in place of torch's four, none of which would notice an inspection."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        frames = _frames(x)
        y, index = torch.ops.aten.max_pool2d_with_indices(frames, *_GEOMETRY)
        ctx.save_for_backward(frames, index)
        ctx.sequences = x.shape[0]
        return _sequences(y, ctx.sequences)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        frames, index = ctx.saved_tensors
        gx = torch.ops.aten.max_pool2d_with_indices_backward(_frames(grad), frames, *_GEOMETRY, index)
        return _sequences(gx, ctx.sequences)


def max_pool(x: Tensor, owns_gradient: bool = False) -> Tensor:
    """Take the 2x2 spatial maximum, stride 2.

    Args:
        x: Feature map `[n, c, t, h, w]`.
        owns_gradient: Whether the gradients of both maps belong to layers of the same network alone.

    Returns:
        Feature map `[n, c, t, h // 2, w // 2]`, channels last.
    """
    if owns_gradient:
        y: Tensor = _MaxPool.apply(x)
        return y
    return _sequences(F.max_pool2d(_frames(x), 2), x.shape[0])


def _frames(x: Tensor) -> Tensor:
    return channels_last(x).transpose(1, 2).flatten(0, 1)  # (n t) c h w


def _sequences(frames: Tensor, n: int) -> Tensor:
    _, c, h, w = frames.shape
    return frames.view(n, -1, c, h, w).transpose(1, 2)
