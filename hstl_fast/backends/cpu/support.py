"""Supports on the native CPU backend: where feature maps may be non-zero, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hstl_fast.backends import implements
from hstl_fast.backends.cpu.calls import Memory, NativeCall
from hstl_fast.layout import frames_of
from hstl_fast.reference import fta_lengths


@dataclass(slots=True, eq=False)
class FindCall(NativeCall):
    """The support of silhouettes: where they are not 0; only execution plans use it."""

    name: ClassVar[str] = "find_support"
    y: Memory
    x: Memory
    count: int
    itemsize: int
    threads: int


@dataclass(slots=True, eq=False)
class GrowCall(NativeCall):
    """One position more in t, h and w, never across a region's or a sequence's end."""

    name: ClassVar[str] = "grow_support"
    y: Memory
    x: Memory
    seq_lens: list[int]
    split: list[int]
    w: int
    threads: int


@dataclass(slots=True, eq=False)
class WindowCall(NativeCall):
    """Any of the five frames of each of FTA's windows."""

    name: ClassVar[str] = "window_support"
    y: Memory
    x: Memory
    seq_lens: list[int]
    h: int
    w: int
    threads: int


@dataclass(slots=True, eq=False)
class MaxPoolCall(NativeCall):
    """Any of 2x2 positions."""

    name: ClassVar[str] = "max_pool_support"
    y: Memory
    x: Memory
    frames: int
    h: int
    w: int


@implements("grow_support", "cpu")
def grow(support: Tensor, split: list[int], seq_lens: list[int]) -> Tensor:
    """The support of ARME's output, bool `[n, t, h, w]`."""
    x = support.contiguous()
    y = torch.empty_like(x)
    GrowCall(y, x, _lens(x, seq_lens), split, x.shape[3], torch.get_num_threads())()
    return y


@implements("window_support", "cpu")
def window(support: Tensor, seq_lens: list[int]) -> Tensor:
    """The support of FTA's output, bool `[n, t', h, w]`."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, sum(fta_lengths(seq_lens)) if seq_lens else t // 3, h, w))
    WindowCall(y, x, _lens(x, seq_lens), h, w, torch.get_num_threads())()
    return y


@implements("max_pool_support", "cpu")
def max_pool(support: Tensor) -> Tensor:
    """The support of the 2x2 maximum, bool `[n, t, h // 2, w // 2]`."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, t, h // 2, w // 2))
    MaxPoolCall(y, x, n * t, h, w)()
    return y


def _lens(support: Tensor, seq_lens: list[int]) -> list[int]:
    return frames_of(support[:, None], seq_lens)
