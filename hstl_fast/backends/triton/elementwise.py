"""Kernels that change a map position by position: zeros outside the support, and the gradient of LeakyReLU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast.backends.triton.launch import on_device_of, wide


@triton.jit
def _clear_outside(y, support, positions, CHANNELS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Writes zeros at the positions outside the support. Bytes: those written, and one per position read."""
    at = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    active = tl.load(support + at, mask=at < positions, other=1)
    for first in range(0, CHANNELS, BLOCK_N):
        col = first + tl.arange(0, BLOCK_N)
        place = at.to(tl.int64)[:, None] * CHANNELS + col[None, :]
        zeros = tl.zeros([BLOCK_M, BLOCK_N], y.dtype.element_ty)
        tl.store(y + place, zeros, mask=(active == 0)[:, None] & (col < CHANNELS)[None, :])


@triton.jit
def _leaky_backward(grad, y, size, slope, BLOCK: tl.constexpr):
    """Multiplies grad by slope where y, an output of LeakyReLU, is not positive. Bytes: two maps read, one written."""
    at = wide(tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    g = tl.load(grad + at, mask=inside).to(tl.float32)
    sign = tl.load(y + at, mask=inside)
    tl.store(grad + at, tl.where(sign > 0, g, g * slope).to(grad.dtype.element_ty), mask=inside)


def leaky_backward_(grad: Tensor, y: Tensor, slope: float) -> None:
    """Multiply a gradient in place by LeakyReLU's derivative, found from its output's sign; both maps channels last."""
    block = 1024
    with on_device_of(grad):
        _leaky_backward[(triton.cdiv(grad.numel(), block),)](grad, y, grad.numel(), slope, BLOCK=block)


def clear_outside(y: Tensor, support: Tensor) -> None:
    """Write zeros into `y` [n, c, t, h, w] outside its support."""
    channels, positions, block_m = y.shape[1], support.numel(), 64
    block_n = min(triton.next_power_of_2(channels), 128)
    with on_device_of(y):
        _clear_outside[(triton.cdiv(positions, block_m),)](
            y, support.contiguous().view(torch.int8), positions, CHANNELS=channels, BLOCK_M=block_m, BLOCK_N=block_n
        )
