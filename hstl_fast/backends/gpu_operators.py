"""The private operators of a backend for GPUs: inputs are laid out for its kernels, and results given torch's types.

The kernels of every such backend are functions of the same names: in its modules `arme`, `astp`, `elementwise` and
`support`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast.backends import implements, indexable
from hstl_fast.layout import channels_last, frames_of


class Kernels(NamedTuple):
    """A backend's name, and the modules with its kernels."""

    backend: str
    arme: ModuleType
    astp: ModuleType
    elementwise: ModuleType
    support: ModuleType


def register(kernels: Kernels) -> None:
    """Register a backend's implementations of all private operators but those of `fta`."""
    implements("grow_support", kernels.backend)(kernels.support.grow)
    implements("window_support", kernels.backend)(kernels.support.window)
    implements("max_pool_support", kernels.backend)(kernels.support.max_pool)
    for name, function in _OPERATORS.items():
        implements(name, kernels.backend)(functools.partial(function, kernels))


def _arme_forward(
    kernels: Kernels,
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
    y: Tensor = kernels.arme.forward(channels_last(x), w, y_support, split, seq_lens, negative_slope)
    return y


def _arme_dgrad(
    kernels: Kernels,
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
    g = channels_last(_before_leaky(kernels, grad, y, negative_slope))
    gx: Tensor = kernels.arme.dgrad(g, weights.to(g.dtype), x_support, split, seq_lens)
    return gx


def _arme_wgrad(
    kernels: Kernels,
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
    g = channels_last(_before_leaky(kernels, grad, y, negative_slope))
    gw: Tensor = kernels.arme.wgrad(g, channels_last(x), y_support, split, seq_lens)
    return gw.to(weights.dtype)


def _leaky_backward_(kernels: Kernels, grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float) -> None:
    kernels.elementwise.leaky_backward_(grad, channels_last(y), negative_slope)


def _before_leaky(kernels: Kernels, grad: Tensor, y: Tensor | None, negative_slope: float) -> Tensor:
    """The gradient of the convolution, from that of its activation."""
    if y is None or negative_slope == 1.0:
        return grad
    g = grad.clone(memory_format=torch.channels_last_3d)
    _leaky_backward_(kernels, g, y, None, negative_slope)
    return g


def _frame_maximum(kernels: Kernels, x: Tensor, within: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    lens = indexable(frames_of(x, seq_lens), kernels.backend)
    found: tuple[Tensor, Tensor] = kernels.astp.frame_maximum(channels_last(x), within, lens)
    return found


def _frame_maximum_backward(
    kernels: Kernels, grad: Tensor, index: Tensor, x_shape: list[int], dtype: torch.dtype, seq_lens: list[int]
) -> Tensor:
    gx: Tensor = kernels.astp.frame_maximum_backward(channels_last(grad), index, x_shape, dtype, seq_lens)
    return gx


def _frame_maximum_backward_add(kernels: Kernels, gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    kernels.astp.frame_maximum_backward_add(gx, channels_last(grad), index, frames_of(gx, seq_lens))


def _astp_forward(
    kernels: Kernels,
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    within: Tensor | None,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    maximum, index = _frame_maximum(kernels, x, within, seq_lens)
    maximum = maximum[:, :, 0].permute(0, 2, 3, 1)  # n h w c, as it is in memory
    pooled, by_power = kernels.astp.forward(maximum, None if proj is None else _float32(proj), _float32(p), split)
    return pooled, maximum, index, by_power


def _astp_backward(
    kernels: Kernels,
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
    gu = kernels.astp.backward(g, pooled.contiguous(), maximum, matrix, _float32(p), split)
    gp = (g * by_power).sum((0, 2)).to(p.dtype)
    if proj is None or matrix is None:
        gmaximum, gproj = gu, p.new_empty(0)
    else:
        with torch.autocast(grad.device.type, enabled=False):
            gmaximum = gu @ matrix
            gproj = (gu.flatten(0, 2).T @ maximum.flatten(0, 2).float()).to(proj.dtype)
    gx = kernels.astp.frame_maximum_backward(gmaximum, index, x_shape, dtype, seq_lens)
    return gx, gproj, gp


def _float32(parameter: Tensor) -> Tensor:
    return parameter.float().contiguous()


_OPERATORS: dict[str, Callable[..., Any]] = {
    "arme_forward": _arme_forward,
    "arme_dgrad": _arme_dgrad,
    "arme_wgrad": _arme_wgrad,
    "leaky_backward_": _leaky_backward_,
    "frame_maximum": _frame_maximum,
    "frame_maximum_backward": _frame_maximum_backward,
    "frame_maximum_backward_add": _frame_maximum_backward_add,
    "astp_forward": _astp_forward,
    "astp_backward": _astp_backward,
}
