"""ARME, the region-wise 3D convolution with LeakyReLU: forward, both gradients, and the public function."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast.ops import _checks, _dispatch, _native
from hstl_fast.ops._apply import NativeFunction, apply
from hstl_fast.ops._shared import (
    LIBRARY,
    channels_last,
    computing_dtype,
    dense,
    empty_map,
    first_derivative_only,
    frames_of,
    reference_dtype,
    scratch,
    under_autocast,
    without_autocast,
)

LIBRARY.define("arme_forward(Tensor x, Tensor weights, int[] split, SymInt[] seq_lens, float negative_slope) -> Tensor")
LIBRARY.define(
    "arme_backward_data(Tensor grad, Tensor y, Tensor weights, int[] split, SymInt[] seq_lens, float negative_slope)"
    " -> Tensor"
)
LIBRARY.define(
    "arme_backward_weight(Tensor grad, Tensor y, Tensor x, Tensor weights, int[] split, SymInt[] seq_lens,"
    " float negative_slope) -> Tensor"
)


@torch.library.register_fake("hstl_fast::arme_forward", lib=LIBRARY)
def _forward_fake(x: Tensor, weights: Tensor, split: list[int], seq_lens: list[int], negative_slope: float) -> Tensor:
    n, _, t, h, w = x.shape
    return empty_map(x, n, weights.shape[1], t, h, w)


@torch.library.register_fake("hstl_fast::arme_backward_data", lib=LIBRARY)
def _backward_data_fake(
    grad: Tensor, y: Tensor, weights: Tensor, split: list[int], seq_lens: list[int], negative_slope: float
) -> Tensor:
    n, _, t, h, w = grad.shape
    return empty_map(grad, n, weights.shape[2], t, h, w)


@torch.library.register_fake("hstl_fast::arme_backward_weight", lib=LIBRARY)
def _backward_weight_fake(
    grad: Tensor,
    y: Tensor,
    x: Tensor,
    weights: Tensor,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
) -> Tensor:
    return torch.empty_like(weights, memory_format=torch.contiguous_format)


@torch.library.impl("hstl_fast::arme_forward", "CPU", lib=LIBRARY)
def _forward_cpu(x: Tensor, weights: Tensor, split: list[int], seq_lens: list[int], negative_slope: float) -> Tensor:
    dtype = computing_dtype(x.dtype)
    x_, w_ = dense(x, dtype), weights.to(dtype).contiguous()
    n, _, t, h, w = x.shape
    y = empty_map(x_, n, weights.shape[1], t, h, w)
    sizes = _sizes(x_, weights, split, seq_lens)
    workspace = scratch(_native.require_cpu().arme_workspace(*sizes))
    packed = _packed(w_, split, False)
    _native.require_cpu().arme_forward(
        y.data_ptr(),
        x_.data_ptr(),
        packed.data_ptr(),
        workspace.data_ptr(),
        0,
        0,
        *sizes[:5],
        negative_slope,
        *sizes[5:],
    )
    return y.to(x.dtype)


@torch.library.impl("hstl_fast::arme_backward_data", "CPU", lib=LIBRARY)
def _backward_data_cpu(
    grad: Tensor, y: Tensor, weights: Tensor, split: list[int], seq_lens: list[int], negative_slope: float
) -> Tensor:
    dtype = computing_dtype(grad.dtype)
    g, y_, w_ = dense(grad, dtype), dense(y, dtype), weights.to(dtype).contiguous()
    n, _, t, h, w = grad.shape
    gx = empty_map(g, n, weights.shape[2], t, h, w)
    sizes = _sizes(g, weights, split, seq_lens)
    workspace = scratch(_native.require_cpu().arme_workspace(*sizes))
    packed = _packed(w_, split, True)
    _native.require_cpu().arme_backward_data(
        gx.data_ptr(),
        g.data_ptr(),
        0 if negative_slope == 1.0 else y_.data_ptr(),
        packed.data_ptr(),
        workspace.data_ptr(),
        0,
        0,
        *sizes[:5],
        negative_slope,
        *sizes[5:],
    )
    return gx.to(grad.dtype)


@torch.library.impl("hstl_fast::arme_backward_weight", "CPU", lib=LIBRARY)
def _backward_weight_cpu(
    grad: Tensor,
    y: Tensor,
    x: Tensor,
    weights: Tensor,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
) -> Tensor:
    dtype = computing_dtype(grad.dtype)
    g, y_, x_ = dense(grad, dtype), dense(y, dtype), dense(x, dtype)
    gw = torch.empty(weights.shape, dtype=dtype)
    sizes = _sizes(x_, weights, split, seq_lens)
    workspace = scratch(_native.require_cpu().arme_workspace(*sizes))
    _native.require_cpu().arme_backward_weight(
        gw.data_ptr(),
        x_.data_ptr(),
        g.data_ptr(),
        0 if negative_slope == 1.0 else y_.data_ptr(),
        workspace.data_ptr(),
        0,
        0,
        *sizes[:5],
        negative_slope,
        *sizes[5:],
    )
    return gw.to(weights.dtype)


def _sizes(
    like: Tensor, weights: Tensor, split: list[int], seq_lens: list[int]
) -> tuple[list[int], list[int], int, int, int, int, int, int]:
    """seq_lens, split, w, cin, cout, algorithm, itemsize, threads: what every native call ends with."""
    _, c_out, c_in = weights.shape[:3]
    return (
        frames_of(like, seq_lens),
        split,
        like.shape[4],
        c_in,
        c_out,
        0,
        like.dtype.itemsize,
        torch.get_num_threads(),
    )


def _packed(weights: Tensor, split: list[int], transposed: bool) -> Tensor:
    """The weights as the native convolution reads them."""
    _, c_out, c_in = weights.shape[:3]
    sizes = (split, c_in, c_out, 0, transposed, weights.dtype.itemsize)
    packed = scratch(_native.require_cpu().arme_packed_size(*sizes))
    _native.require_cpu().arme_pack(packed.data_ptr(), weights.data_ptr(), *sizes, torch.get_num_threads())
    return packed


class _Arme(NativeFunction):
    """LeakyReLU keeps the sign, so its derivative is read off the output: x, weights and y are all that is saved."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, split: list[int], seq_lens: list[int], negative_slope: float
    ) -> Tensor:
        y: Tensor = torch.ops.hstl_fast.arme_forward(x, weights, split, seq_lens, negative_slope)
        ctx.save_for_backward(y, x, weights)
        ctx.arguments = (split, seq_lens, negative_slope)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, x, weights = ctx.saved_tensors
        gx = gw = None
        if ctx.needs_input_grad[0]:
            gx = torch.ops.hstl_fast.arme_backward_data(grad, y, weights, *ctx.arguments)
        if ctx.needs_input_grad[1]:
            gw = torch.ops.hstl_fast.arme_backward_weight(grad, y, x, weights, *ctx.arguments)
        return gx, gw, None, None, None


def arme(
    x: Tensor,
    weights: Tensor | Sequence[Tensor],
    split: Sequence[int],
    *,
    negative_slope: float | None = 0.01,
    seq_lens: Sequence[int] | Tensor | None = None,
    backend: str | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """Adaptive region-based motion extractor: every region of rows has its own 3x3x3 convolution.

    Equivalent to::

        parts = [F.conv3d(region, w, padding=1) for region, w in zip(x.split(split, dim=3), weights)]
        y = F.leaky_relu(torch.cat(parts, dim=3), negative_slope)

    :param x: feature map [n, c_in, t, h, w], float16, bfloat16, float32 or float64, any strides
    :param weights: [m, c_out, c_in, 3, 3, 3] or a list of m tensors [c_out, c_in, 3, 3, 3]; x's type, or float32
        beside a narrower x
    :param split: rows of each of the m regions; they sum to h
    :param negative_slope: slope of LeakyReLU, at least 0; None for no activation
    :param seq_lens: lengths of the sequences packed along t (then n = 1); neighbours in time stop at their ends.
        A list or a 1-D integer tensor on the CPU
    :param backend: "auto", "reference", "cpu", "triton" or "cuda"; None asks `use_backend` and HSTL_FAST_BACKEND
    :param support: None, or bool [n, t, h, w], True where x may be non-zero. `reference` writes zeros outside the
        support grown by one position; other backends may compute everything. With it, gradients of x are only right
        inside the support, those of weights everywhere
    :returns: [n, c_out, t, h, w], x's type (autocast's under autocast), channels last. Computed in float32 at least
        on the CPU
    :raises ValueError, TypeError: an argument does not fit, by name
    :raises RuntimeError: the backend asked for cannot run, and why

    Source: HSTL (ICCV 2023), ARME.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x)
    rows = _checks.rows(split, x.shape[3])
    w = _stacked(weights, rows, x)
    slope = _slope(negative_slope)
    _checks.support(support, x)
    chosen = _dispatch.choose("arme", x.device.type, x.dtype, backend)
    if chosen == "reference":
        dtype = reference_dtype(x)
        with without_autocast(x):
            y = reference.arme(
                x.to(dtype), w.to(dtype), rows, negative_slope=slope, seq_lens=lens or None, support=support
            )
            return channels_last(y.to(x.dtype))
    return apply(_Arme, x, w, rows, lens, slope)


def _stacked(weights: Tensor | Sequence[Tensor], rows: list[int], x: Tensor) -> Tensor:
    m, c_in = len(rows), x.shape[1]
    if isinstance(weights, Tensor):
        _checks.parameter(weights, "weights", (m, "c_out", c_in, 3, 3, 3), x)
        return weights
    if not isinstance(weights, Sequence) or len(weights) != m:
        got = len(weights) if isinstance(weights, Sequence) else type(weights).__name__
        raise ValueError(f"weights must hold one tensor for each of the {m} regions of split, got {got}")
    for r, weight in enumerate(weights):
        _checks.parameter(weight, f"weights[{r}]", (weights[0].shape[0] if r else "c_out", c_in, 3, 3, 3), x)
    return torch.stack(list(weights))


def _slope(negative_slope: float | None) -> float:
    if negative_slope is None:
        return 1.0
    if isinstance(negative_slope, bool) or not isinstance(negative_slope, (int, float)) or not negative_slope >= 0:
        raise ValueError(f"negative_slope must be None or a number of at least 0, got {negative_slope!r}")
    return float(negative_slope)
