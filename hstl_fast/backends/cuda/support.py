"""Supports on the cuda backend: where feature maps may be non-zero, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hstl_fast.backends.cuda.calls import NativeCall, place_of
from hstl_fast.backends.gpu import countable
from hstl_fast.backends.tables import frames_table, region_of_rows, regions_table, windows_table
from hstl_fast.reference import fta_lengths


@dataclass(slots=True, eq=False)
class GrowCall(NativeCall):
    """One position more in time, rows and columns, never across a region's or a sequence's end."""

    name: ClassVar[str] = "grow_support"
    y: Tensor
    x: Tensor
    ends: Tensor
    regions: Tensor
    region_of_row: Tensor
    frames: int
    h: int
    w: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class WindowCall(NativeCall):
    """Any of the five frames of each of FTA's windows."""

    name: ClassVar[str] = "window_support"
    y: Tensor
    x: Tensor
    windows: Tensor
    frames: int
    h: int
    w: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class MaxPoolCall(NativeCall):
    """Any of 2x2 positions."""

    name: ClassVar[str] = "max_pool_support"
    y: Tensor
    x: Tensor
    frames: int
    h: int
    w: int
    device: int
    stream: int


def grow(support: Tensor, split: list[int], seq_lens: list[int]) -> Tensor:
    """The support `[n, t, h, w]` grown as `grow_support` of hstl_fast.reference grows it."""
    x, device = support.contiguous(), support.device
    n, t, h, w = x.shape
    countable(n * t * h * w, "cuda")
    y = x.new_empty(x.shape)
    ends = frames_table(seq_lens or [t] * n, device).ends
    GrowCall(y, x, ends, regions_table(split, device), region_of_rows(split, device), n * t, h, w, *place_of(x))()
    return y


def window(support: Tensor, seq_lens: list[int]) -> Tensor:
    """The support `[n, t', h, w]` of FTA's windows: inside are the positions of any of a window's five frames."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, sum(fta_lengths(seq_lens)) if seq_lens else t // 3, h, w))
    windows = windows_table(seq_lens or [t] * n, x.device).ends
    WindowCall(y, x, windows, y.shape[0] * y.shape[1], h, w, *place_of(x))()
    return y


def max_pool(support: Tensor) -> Tensor:
    """The support `[n, t, h // 2, w // 2]` after the 2 x 2 max pool: any of four positions."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, t, h // 2, w // 2))
    MaxPoolCall(y, x, n * t, h, w, *place_of(x))()
    return y
