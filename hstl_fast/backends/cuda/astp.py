"""ASTP and strip pooling on the cuda backend: the frame maximum, and the generalised mean of its projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hstl_fast.backends.cuda.calls import NativeCall, place_of, type_of
from hstl_fast.backends.gpu import countable
from hstl_fast.backends.tables import frames_table, region_of_rows, regions_table
from hstl_fast.layout import empty_map, frames_of


@dataclass(slots=True, eq=False)
class FrameMaximumCall(NativeCall):
    """The maximum over the frames of each sequence, and the first frame of the sequence that attains it."""

    name: ClassVar[str] = "frame_maximum"
    maximum: Tensor
    index: Tensor
    x: Tensor
    support: Tensor | None
    starts: Tensor
    sequences: int
    h: int
    w: int
    c: int
    type: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class FrameMaximumBackwardCall(NativeCall):
    """The maximum's gradient at the frame that attains it, 0 elsewhere."""

    name: ClassVar[str] = "frame_maximum_backward"
    gx: Tensor
    grad: Tensor
    index: Tensor
    ends: Tensor
    sequence_of_frame: Tensor
    frames: int
    h: int
    w: int
    c: int
    type: int
    grad_type: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class FrameMaximumBackwardAddCall(NativeCall):
    """The maximum's gradient is added to gx, at the frame that attains it."""

    name: ClassVar[str] = "frame_maximum_backward_add"
    gx: Tensor
    grad: Tensor
    index: Tensor
    starts: Tensor
    sequences: int
    h: int
    w: int
    c: int
    type: int
    grad_type: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class AstpForwardCall(NativeCall):
    """The regions' generalised means of the maximum's projections, and their derivatives by the exponents."""

    name: ClassVar[str] = "astp_forward"
    pooled: Tensor
    by_power: Tensor
    maximum: Tensor
    proj: Tensor | None
    p: Tensor
    regions: Tensor
    sequences: int
    region_count: int
    h: int
    w: int
    c_in: int
    c_out: int
    type: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class AstpBackwardCall(NativeCall):
    """The gradient of the maximum's projections."""

    name: ClassVar[str] = "astp_backward"
    gu: Tensor
    grad: Tensor
    pooled: Tensor
    maximum: Tensor
    proj: Tensor | None
    p: Tensor
    regions: Tensor
    region_of_row: Tensor
    sequences: int
    region_count: int
    h: int
    w: int
    c_in: int
    c_out: int
    type: int
    device: int
    stream: int


def frame_maximum(x: Tensor, support: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    """The maximum over the frames of each sequence, [n, c, 1, h, w], and its frame, int16 [n, h, w, c].

    The support is that of `x` [n, c, t, h, w].
    """
    lens = frames_of(x, seq_lens)
    n, c, t, h, w = x.shape
    countable(n * t * h * w, "cuda")
    maximum = empty_map(x, len(lens), c, 1, h, w)
    index = torch.empty((len(lens), h, w, c), dtype=torch.int16, device=x.device)
    within = None if support is None else support.contiguous()
    starts = frames_table(lens, x.device).starts
    FrameMaximumCall(maximum, index, x, within, starts, len(lens), h, w, c, type_of(x), *place_of(x))()
    return maximum, index


def frame_maximum_backward(
    grad: Tensor, index: Tensor, x_shape: list[int], dtype: torch.dtype, seq_lens: list[int]
) -> Tensor:
    """The gradient of a map, from that of the maxima, as they lie in memory [n, h, w, c]."""
    gx = torch.empty(x_shape, dtype=dtype, device=grad.device, memory_format=torch.channels_last_3d)
    lens = frames_of(gx, seq_lens)
    frames, (_, h, w, c) = frames_table(lens, grad.device), index.shape
    types = type_of(gx), type_of(grad)
    FrameMaximumBackwardCall(gx, grad, index, frames.ends, frames.sequence, sum(lens), h, w, c, *types, *place_of(gx))()
    return gx


def frame_maximum_backward_add(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    """Add the gradient of the maxima to that of their map, in place."""
    starts = frames_table(frames_of(gx, seq_lens), gx.device).starts
    n, h, w, c = index.shape
    FrameMaximumBackwardAddCall(gx, grad, index, starts, n, h, w, c, type_of(gx), type_of(grad), *place_of(gx))()


def forward(maximum: Tensor, proj: Tensor | None, p: Tensor, split: list[int]) -> tuple[Tensor, Tensor]:
    """The regions' generalised means of `maximum` [n, h, w, c_in], and their derivatives by the exponents.

    Both are float32 [n, m, c_out]; proj [c_out, c_in] and p [m] are float32.
    """
    n, h, w, c_in = maximum.shape
    c_out = c_in if proj is None else proj.shape[0]
    pooled, by_power = (
        torch.empty((n, len(split), c_out), dtype=torch.float32, device=maximum.device) for _ in range(2)
    )
    sizes = (n, len(split), h, w, c_in, c_out, type_of(maximum))
    regions = regions_table(split, maximum.device)
    AstpForwardCall(pooled, by_power, maximum, proj, p, regions, *sizes, *place_of(maximum))()
    return pooled, by_power


def backward(grad: Tensor, pooled: Tensor, maximum: Tensor, proj: Tensor | None, p: Tensor, split: list[int]) -> Tensor:
    """The gradient of the projections, float32 [n, h, w, c_out], from that of what `forward` returned."""
    n, h, w, c_in = maximum.shape
    c_out, device = grad.shape[2], maximum.device
    gu = torch.empty((n, h, w, c_out), dtype=torch.float32, device=device)
    tables = regions_table(split, device), region_of_rows(split, device)
    sizes = (n, len(split), h, w, c_in, c_out, type_of(maximum))
    AstpBackwardCall(gu, grad, pooled, maximum, proj, p, *tables, *sizes, *place_of(maximum))()
    return gu
