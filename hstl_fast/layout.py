"""How feature maps lie in memory, and in which element types they are computed.

A feature map `[n, c, t, h, w]` is frames x rows x columns x channels in memory: `torch.channels_last_3d`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hstl_fast._torch_private import under_transforms

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def reference_dtype(x: Tensor) -> torch.dtype:
    """The type in which the reference computes: x's own on an accelerator, at least float32 on a CPU."""
    return computing_dtype(x.dtype) if x.device.type == "cpu" else x.dtype


def channels_last(x: Tensor) -> Tensor:
    """`x` `[n, c, t, h, w]` in `torch.channels_last_3d`; no copy if it is so already."""
    if under_transforms():  # vmap knows no memory formats
        return x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    return x.contiguous(memory_format=torch.channels_last_3d)


def dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` `[n, c, t, h, w]` as `dtype`, channels last."""
    return channels_last(x.to(dtype))


def empty_map(like: Tensor, n: int, c: int, t: int, h: int, w: int) -> Tensor:
    """An uninitialised channels-last feature map `[n, c, t, h, w]` of like's type and device."""
    return torch.empty((n, c, t, h, w), dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def is_native_map(x: Tensor) -> bool:
    """Whether native code computes in `x` as it is: float32 or float64, dense and channels last."""
    return x.dtype == computing_dtype(x.dtype) and x.is_contiguous(memory_format=torch.channels_last_3d)


def frames_of(x: Tensor, seq_lens: list[int]) -> list[int]:
    """The frames of every sequence in `x`: the packed lengths, or one length for all."""
    return seq_lens if seq_lens else [x.shape[2]] * x.shape[0]
