"""FTA, the gated sum of two temporal maximum poolings: forward, gradients, and the public function."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast.ops import _checks, _dispatch, _native
from hstl_fast.ops._apply import NativeFunction, apply
from hstl_fast.ops._memory import map_memory, memory
from hstl_fast.ops._shared import (
    LIBRARY,
    channels_last,
    computing_dtype,
    define,
    dense,
    empty_map,
    first_derivative_only,
    frames_of,
    implements,
    reference_dtype,
    under_autocast,
    without_autocast,
)
from hstl_fast.ops._support import Support, masked, of_input
from hstl_fast.reference import fta_lengths

__all__ = ["fta", "fta_lengths"]

_LAYER = "Tensor weights, Tensor biases, Tensor? y_support, int[] split, SymInt[] seq_lens"
"""What both private operators take; the support, bool [n, t', h, w], is the output's."""

define(f"fta_forward(Tensor x, {_LAYER}, str backend) -> (Tensor y, Tensor means)")
define(
    f"fta_backward(Tensor grad, Tensor x, Tensor means, {_LAYER}, str backend)"
    " -> (Tensor gx, Tensor gweights, Tensor gbiases)"
)


@torch.library.register_fake("hstl_fast::fta_forward", lib=LIBRARY)
def _forward_fake(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor]:
    n, c, t, h, w = x.shape
    frames = sum(fta_lengths(seq_lens)) if seq_lens else t // 3
    means = x.new_empty((n * frames, len(split), c), dtype=computing_dtype(x.dtype))
    return empty_map(x, n, c, frames, h, w), means


@torch.library.register_fake("hstl_fast::fta_backward", lib=LIBRARY)
def _backward_fake(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, t, h, w = x.shape
    gweights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    gbiases = torch.empty_like(biases, memory_format=torch.contiguous_format)
    return empty_map(x, n, c, t, h, w), gweights, gbiases


@implements("fta_forward", "cpu")
def _forward_cpu(
    x: Tensor, weights: Tensor, biases: Tensor, y_support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor]:
    native = _native.require_cpu()
    dtype = computing_dtype(x.dtype)
    x_, weights_, biases_ = dense(x, dtype), weights.to(dtype).contiguous(), biases.to(dtype).contiguous()
    n, c, t, h, w = x.shape
    sizes = _sizes(x_, split, seq_lens)
    frames = sum(fta_lengths(seq_lens)) if seq_lens else t // 3
    y = map_memory(x_, n, c, frames, h, w)
    means = torch.empty((n * frames, len(split), c), dtype=dtype)
    workspace = memory(native.fta_workspace(*sizes))
    native.fta_forward(
        y.data_ptr(),
        means.data_ptr(),
        x_.data_ptr(),
        weights_.data_ptr(),
        biases_.data_ptr(),
        workspace.data_ptr(),
        *sizes,
        0 if y_support is None else y_support.data_ptr(),
    )
    return y.to(x.dtype), means


@implements("fta_backward", "cpu")
def _backward_cpu(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    native = _native.require_cpu()
    dtype = means.dtype
    g, x_ = dense(grad, dtype), dense(x, dtype)
    weights_, biases_ = weights.to(dtype).contiguous(), biases.to(dtype).contiguous()
    sizes = _sizes(x_, split, seq_lens)
    n, c, t, h, w = x.shape
    gx = map_memory(x_, n, c, t, h, w)
    gweights, gbiases = torch.empty_like(weights_), torch.empty_like(biases_)
    workspace = memory(native.fta_workspace(*sizes))
    native.fta_backward(
        gx.data_ptr(),
        gweights.data_ptr(),
        gbiases.data_ptr(),
        g.data_ptr(),
        x_.data_ptr(),
        means.data_ptr(),
        weights_.data_ptr(),
        biases_.data_ptr(),
        workspace.data_ptr(),
        *sizes,
        0 if y_support is None else y_support.data_ptr(),
    )
    return gx.to(x.dtype), gweights.to(weights.dtype), gbiases.to(biases.dtype)


@implements("fta_forward", "triton")
def _forward_triton(
    x: Tensor, weights: Tensor, biases: Tensor, y_support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor]:
    from hstl_fast.triton_kernels import fta as kernels

    with without_autocast(x):
        return kernels.forward(channels_last(x), weights.float(), biases.float(), y_support, split, seq_lens)


@implements("fta_backward", "triton")
def _backward_triton(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    from hstl_fast.triton_kernels import fta as kernels

    with without_autocast(x):
        gx, gweights, gbiases = kernels.backward(
            channels_last(grad), channels_last(x), means, weights.float(), biases.float(), y_support, split, seq_lens
        )
    return gx, gweights.to(weights.dtype), gbiases.to(biases.dtype)


def _sizes(x: Tensor, split: list[int], seq_lens: list[int]) -> tuple[list[int], list[int], int, int, int, int]:
    """seq_lens, split, w, c, itemsize, threads: what every native call of this operator ends with."""
    return frames_of(x, seq_lens), split, x.shape[4], x.shape[1], x.dtype.itemsize, torch.get_num_threads()


class _Fta(NativeFunction):
    """Saves the input and the region means; both pooled maps are found again in backward."""

    saves_result = False

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        biases: Tensor,
        y_support: Tensor | None,
        *arguments: Any,
    ) -> Tensor:
        y: Tensor
        y, means = torch.ops.hstl_fast.fta_forward(x, weights, biases, y_support, *arguments)
        ctx.save_for_backward(means, x, weights, biases, y_support)
        ctx.arguments = arguments
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        means, x, *layer = ctx.saved_tensors
        gx, gweights, gbiases = torch.ops.hstl_fast.fta_backward(grad, x, means, *layer, *ctx.arguments)
        return gx, gweights, gbiases, None, None, None, None


def fta(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    split: Sequence[int],
    *,
    seq_lens: Sequence[int] | Tensor | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
) -> Tensor:
    """Frame-level temporal aggregation: per region, a gated sum of temporal maxima over 3 and over 5 frames.

    Equivalent, for each region with its own weights (W_a, W_b) and biases (b_a, b_b), to::

        a = F.max_pool3d(region, (3, 1, 1), stride=(3, 1, 1))
        b = F.max_pool3d(region, (5, 1, 1), stride=(3, 1, 1), padding=(1, 0, 0))
        z = (a + b).mean(dim=(3, 4))                                          # [n, c, t']
        gate = torch.softmax(torch.stack([W_a @ z + b_a, W_b @ z + b_b]), 0)[..., None, None]
        y = gate[0] * a + gate[1] * b

    :param x: feature map [n, c, t, h, w], t >= 3, float16, bfloat16, float32 or float64, any strides
    :param weights: [m, 2, c, c]: W_a and W_b of every region; x's type, or float32 beside a narrower x
    :param biases: [m, 2, c]
    :param split: rows of each of the m regions; they sum to h
    :param seq_lens: lengths of the sequences packed along t (then n = 1), each at least 3; windows stop at their
        ends, and the result is packed with the lengths `fta_lengths(seq_lens)`
    :param backend: as for :func:`arme`
    :param support: None, or bool [n, t, h, w], True where x may be non-zero; outside, x counts as 0, whatever stands
        there (a copy of x is made)
    :returns: [n, c, t', h, w] with t' = t // 3 (or their sum), x's type (autocast's under autocast), channels last
    :raises ValueError, TypeError: an argument does not fit, by name
    :raises RuntimeError: the backend asked for cannot run, and why

    Source: HSTL (ICCV 2023), FTA.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x, at_least=3)
    rows = _checks.rows(split, x.shape[3])
    m, c = len(rows), x.shape[1]
    _checks.parameter(weights, "weights", (m, 2, c, c), x)
    _checks.parameter(biases, "biases", (m, 2, c), x)
    within = of_input(support)
    _checks.support(within, x)
    chosen = _dispatch.choose("fta", x.device.type, x.dtype, backend)
    if chosen == "reference":
        with without_autocast(x):
            y = reference.fta(x.to(reference_dtype(x)), weights, biases, rows, seq_lens=lens or None, support=within)
            return channels_last(y.to(x.dtype))
    if isinstance(support, Tensor):
        x, support = masked(x, support), None
    return apply(_Fta, x, weights, biases, None if support is None else support.y, rows, lens, chosen)
