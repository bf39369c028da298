"""The private operators on the triton backend: inputs are laid out for the kernels, and results given torch's types."""

from __future__ import annotations

import torch
from torch import Tensor

from hstl_fast.backends import implements, indexable
from hstl_fast.backends.triton import arme, astp, elementwise, fta, support
from hstl_fast.layout import channels_last, frames_of

implements("grow_support", "triton")(support.grow)
implements("window_support", "triton")(support.window)
implements("max_pool_support", "triton")(support.max_pool)


@implements("arme_forward", "triton")
def _arme_forward(
    x: Tensor,
    weights: Tensor,
    x_support: Tensor | None,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
    algorithm: int,
    cache_weights: bool,
    training: bool,
) -> Tensor:
    w = weights if x.dtype == torch.uint8 else weights.to(x.dtype)
    return arme.forward(channels_last(x), w, y_support, split, seq_lens, negative_slope)


@implements("arme_dgrad", "triton")
def _arme_dgrad(
    grad: Tensor,
    y: Tensor | None,
    weights: Tensor,
    x_support: Tensor | None,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
    algorithm: int,
) -> Tensor:
    g = channels_last(_before_leaky(grad, y, negative_slope))
    return arme.dgrad(g, weights.to(g.dtype), x_support, split, seq_lens)


@implements("arme_wgrad", "triton")
def _arme_wgrad(
    grad: Tensor,
    y: Tensor | None,
    x: Tensor,
    weights: Tensor,
    x_support: Tensor | None,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
    algorithm: int,
) -> Tensor:
    g = channels_last(_before_leaky(grad, y, negative_slope))
    return arme.wgrad(g, channels_last(x), y_support, split, seq_lens).to(weights.dtype)


@implements("leaky_backward_", "triton")
def _leaky_backward_(grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float) -> None:
    elementwise.leaky_backward_(grad, channels_last(y), negative_slope)


def _before_leaky(grad: Tensor, y: Tensor | None, negative_slope: float) -> Tensor:
    """The gradient of the convolution, from that of its activation."""
    if y is None or negative_slope == 1.0:
        return grad
    g = grad.clone(memory_format=torch.channels_last_3d)
    _leaky_backward_(g, y, None, negative_slope)
    return g


@implements("frame_maximum", "triton")
def _frame_maximum(x: Tensor, within: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    return astp.frame_maximum(channels_last(x), within, indexable(frames_of(x, seq_lens), "triton"))


@implements("frame_maximum_backward", "triton")
def _frame_maximum_backward(
    grad: Tensor, index: Tensor, x_shape: list[int], dtype: torch.dtype, seq_lens: list[int]
) -> Tensor:
    return astp.frame_maximum_backward(channels_last(grad), index, x_shape, dtype, seq_lens)


@implements("frame_maximum_backward_add", "triton")
def _frame_maximum_backward_add(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    astp.frame_maximum_backward_add(gx, channels_last(grad), index, frames_of(gx, seq_lens))


@implements("astp_forward", "triton")
def _astp_forward(
    x: Tensor, proj: Tensor | None, p: Tensor, within: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    maximum, index = _frame_maximum(x, within, seq_lens)
    maximum = maximum[:, :, 0].permute(0, 2, 3, 1)  # n h w c, as it is in memory
    pooled, by_power = astp.forward(maximum, None if proj is None else _float32(proj), _float32(p), split)
    return pooled, maximum, index, by_power


@implements("astp_backward", "triton")
def _astp_backward(
    grad: Tensor,
    pooled: Tensor,
    maximum: Tensor,
    index: Tensor,
    by_power: Tensor,
    proj: Tensor | None,
    p: Tensor,
    x_shape: list[int],
    dtype: torch.dtype,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    g, matrix = grad.contiguous(), None if proj is None else _float32(proj)
    gu = astp.backward(g, pooled.contiguous(), maximum, matrix, _float32(p), split)
    gp = (g * by_power).sum((0, 2)).to(p.dtype)
    if proj is None or matrix is None:
        gmaximum, gproj = gu, p.new_empty(0)
    else:
        with torch.autocast(grad.device.type, enabled=False):
            gmaximum = gu @ matrix
            gproj = (gu.flatten(0, 2).T @ maximum.flatten(0, 2).float()).to(proj.dtype)
    gx = astp.frame_maximum_backward(gmaximum, index, x_shape, dtype, seq_lens)
    return gx, gproj, gp


@implements("fta_forward", "triton")
def _fta_forward(
    x: Tensor, weights: Tensor, biases: Tensor, y_support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        return fta.forward(channels_last(x), weights.float(), biases.float(), y_support, split, seq_lens)


@implements("fta_backward", "triton")
def _fta_backward(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    g, x_ = channels_last(grad), channels_last(x)
    with torch.autocast(x.device.type, enabled=False):
        gx, gweights, gbiases = fta.backward(g, x_, means, weights.float(), biases.float(), y_support, split, seq_lens)
    return gx, gweights.to(weights.dtype), gbiases.to(biases.dtype)


def _float32(parameter: Tensor) -> Tensor:
    return parameter.float().contiguous()
