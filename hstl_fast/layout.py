"""How feature maps lie in memory, and in which element types they are computed.

A feature map `[n, c, t, h, w]` is frames x rows x columns x channels in memory: `torch.channels_last_3d`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hstl_fast._torch_private import under_transforms

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """Choose the type in which native code computes.

    Args:
        dtype: The type of a map.

    Returns:
        float64 for float64, float32 for everything narrower.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def reference_dtype(x: Tensor) -> torch.dtype:
    """Choose the type in which the reference computes.

    Args:
        x: The map.

    Returns:
        The type of `x` on an accelerator, at least float32 on a CPU.
    """
    return computing_dtype(x.dtype) if x.device.type == "cpu" else x.dtype


def channels_last(x: Tensor) -> Tensor:
    """Lay a map out in `torch.channels_last_3d`.

    Args:
        x: Feature map `[n, c, t, h, w]` of any strides.

    Returns:
        The same values; no copy is made of a map that has this layout.
    """
    if under_transforms():  # vmap knows no memory formats
        return x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    return x.contiguous(memory_format=torch.channels_last_3d)


def dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a map to a type and to channels last.

    Args:
        x: Feature map `[n, c, t, h, w]`.
        dtype: The new type.

    Returns:
        The map; no copy is made where nothing is to be converted.
    """
    return channels_last(x.to(dtype))


def empty_map(like: Tensor, n: int, c: int, t: int, h: int, w: int) -> Tensor:
    """Allocate an uninitialised feature map.

    Args:
        like: A tensor of the map's type and device.
        n: Sequences.
        c: Channels.
        t: Frames.
        h: Rows.
        w: Columns.

    Returns:
        A tensor `[n, c, t, h, w]`, channels last.
    """
    return torch.empty((n, c, t, h, w), dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def is_native_map(x: Tensor) -> bool:
    """Return whether native code computes in a map as it is.

    Args:
        x: The map.

    Returns:
        True if it is float32 or float64, dense and channels last.
    """
    return x.dtype == computing_dtype(x.dtype) and x.is_contiguous(memory_format=torch.channels_last_3d)


def frames_of(x: Tensor, seq_lens: list[int]) -> list[int]:
    """Count the frames of every sequence of a map.

    Args:
        x: Feature map `[n, c, t, h, w]`.
        seq_lens: The packed lengths; empty where the sequences are not packed.

    Returns:
        The packed lengths, or `t` for each of the `n` sequences.
    """
    return seq_lens if seq_lens else [x.shape[2]] * x.shape[0]
