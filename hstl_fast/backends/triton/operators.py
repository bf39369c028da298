"""The private operators on the triton backend: those of every backend for GPUs, and FTA's."""

from __future__ import annotations

import torch
from torch import Tensor

from hstl_fast.backends import gpu_operators, implements
from hstl_fast.backends.triton import arme, astp, elementwise, fta, support
from hstl_fast.layout import channels_last

gpu_operators.register(gpu_operators.Kernels("triton", arme, astp, elementwise, support))


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
