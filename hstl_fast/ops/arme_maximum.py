"""The frame maximum of an ARME layer whose map nothing else reads, as one node of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hstl_fast._torch_private import is_batched
from hstl_fast.layout import is_native_map
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.ops._autograd import first_derivative_only, pad_with_none
from hstl_fast.ops._ownership import OwningFunction, notices_inspection
from hstl_fast.ops.arme import free_saved
from hstl_fast.ops.support import Support


@notices_inspection
class _ArmeMaximum(OwningFunction):
    """The frame maximum of a convolution that nothing else reads: the map is not kept.

    LeakyReLU's derivative is read off the maxima, and applied to their gradient before that becomes a map.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        x_support: Tensor,
        y_support: Tensor,
        split: list[int],
        seq_lens: list[int],
        negative_slope: float,
        algorithm: int,
        backend: str,
    ) -> Tensor:
        layer = (split, seq_lens, negative_slope, algorithm, False, True)
        y = torch.ops.hstl_fast.arme_forward(x, weights, x_support, y_support, *layer, backend)
        maximum: Tensor
        maximum, index = torch.ops.hstl_fast.frame_maximum(y, y_support, seq_lens, backend)
        ctx.arguments, ctx.map = (split, seq_lens, negative_slope, algorithm, backend), (list(y.shape), y.dtype)
        ctx.save_for_backward(maximum.detach(), x, weights, x_support, y_support, index)
        return maximum

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gmaximum: Tensor) -> tuple[Tensor | None, ...]:
        maximum, x, weights, x_support, y_support, index = ctx.saved_tensors
        split, seq_lens, slope, algorithm, backend = ctx.arguments
        if slope != 1.0:
            gmaximum = _through_activation(gmaximum, maximum, slope, backend)
        grad = torch.ops.hstl_fast.frame_maximum_backward(gmaximum, index, *ctx.map, seq_lens, backend)
        del gmaximum, maximum, index  # they make room for the gradient of x
        free_saved(ctx)
        layer = (x_support, y_support, split, seq_lens, 1.0, algorithm, backend)
        gw = gx = None
        needs_x, needs_weights = ctx.needs_input_grad[:2]
        if needs_weights:
            gw = torch.ops.hstl_fast.arme_wgrad(grad, None, x, weights, *layer)
        if needs_x:
            gx = torch.ops.hstl_fast.arme_dgrad(grad, None, weights, *layer)
        return pad_with_none(ctx, gx, gw)


def _through_activation(grad: Tensor, y: Tensor, slope: float, backend: str) -> Tensor:
    """The gradient `grad` of LeakyReLU's output `y` as that of its input."""
    if is_batched(grad) or not is_native_map(grad):
        return torch.where(y > 0, grad, grad * slope)
    through = grad.clone(memory_format=torch.channels_last_3d)  # in one pass over memory
    torch.ops.hstl_fast.leaky_backward_(through, y, None, slope, backend)
    return through


def arme_maximum(
    x: Tensor, weights: Tensor, split: list[int], negative_slope: float | None, lens: list[int], support: Support,
    backend: str,
) -> Tensor:  # fmt: skip
    """The frame maximum of `arme`, of which nothing else is wanted.

    It is for networks that own the gradients of their maps, in training, and not for torch.func or torch.compile.

    Args:
        x: Feature map `[n, c_in, t, h, w]`.
        weights: `[m, c_out, c_in, 3, 3, 3]`.
        split: Rows of each region.
        negative_slope: As for `arme`.
        lens: Lengths of packed sequences, else empty.
        support: The supports of input and output.
        backend: The backend.

    Returns:
        The maxima over the frames of each sequence `[n, c_out, 1, h, w]`.
    """
    dense_x = x.contiguous(memory_format=torch.channels_last_3d)
    rows = _checks.rows(split, x.shape[3])
    _checks.parameter(weights, "weights", (len(rows), "c_out", x.shape[1], 3, 3, 3), x)
    slope, algorithm = _checks.slope(negative_slope), _dispatch.choose_algorithm(None, backend, x.dtype)
    maximum: Tensor = _ArmeMaximum.apply(dense_x, weights, support.x, support.y, rows, lens, slope, algorithm, backend)
    return maximum
