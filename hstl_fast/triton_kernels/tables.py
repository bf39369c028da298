"""Small tables that kernels read: where sequences, windows and regions begin and end."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hstl_fast.reference import fta_lengths


class Frames(NamedTuple):
    """Of all sequences, one after another; int32."""

    ends: Tensor
    """[frames, 2]: the first and the last frame of the sequence that a frame belongs to."""
    starts: Tensor
    """[n + 1]: each sequence's first frame, and the number of all."""
    sequence: Tensor
    """[frames]: the sequence that a frame belongs to."""


class Windows(NamedTuple):
    """FTA's, of all sequences; int32."""

    ends: Tensor
    """[windows, 3]: a window's second frame, with which its inner three begin; its sequence's first and last frame."""
    starts: Tensor
    """[n + 1]: each sequence's first window, and the number of all."""


def frames_table(lens: Sequence[int], device: torch.device) -> Frames:
    """The table for sequences of these lengths."""
    return _frames(tuple(lens), device)


def windows_table(lens: Sequence[int], device: torch.device) -> Windows:
    """The table for sequences of these lengths."""
    return _windows(tuple(lens), device)


def regions_table(split: Sequence[int], device: torch.device) -> Tensor:
    """int32 [m, 2]: the first row of each region, and how many it has."""
    return _regions(tuple(split), device)


def region_of_rows(split: Sequence[int], device: torch.device) -> Tensor:
    """int32 [h]: the region that each row belongs to."""
    return _region_of_rows(tuple(split), device)


@functools.lru_cache(maxsize=256)
def _frames(lens: tuple[int, ...], device: torch.device) -> Frames:
    starts = _starts(lens)
    ends = np.stack([np.repeat(starts[:-1], lens), np.repeat(starts[1:] - 1, lens)], 1)
    sequence = np.repeat(np.arange(len(lens)), lens)
    return Frames(_on(ends, device), _on(starts, device), _on(sequence, device))


@functools.lru_cache(maxsize=256)
def _windows(lens: tuple[int, ...], device: torch.device) -> Windows:
    frames, counts = _starts(lens), fta_lengths(lens)
    windows = _starts(counts)
    within = np.arange(windows[-1]) - np.repeat(windows[:-1], counts)
    firsts, lasts = np.repeat(frames[:-1], counts), np.repeat(frames[1:] - 1, counts)
    return Windows(_on(np.stack([firsts + 3 * within, firsts, lasts], 1), device), _on(windows, device))


@functools.lru_cache(maxsize=256)
def _regions(split: tuple[int, ...], device: torch.device) -> Tensor:
    return _on(np.stack([_starts(split)[:-1], split], 1), device)


@functools.lru_cache(maxsize=256)
def _region_of_rows(split: tuple[int, ...], device: torch.device) -> Tensor:
    return _on(np.repeat(np.arange(len(split)), split), device)


def _starts(lens: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lens)])


def _on(values: np.ndarray, device: torch.device) -> Tensor:
    table = torch.from_numpy(np.ascontiguousarray(values, np.int32))
    if device.type == "cpu":
        return table
    return table.pin_memory().to(device, non_blocking=True)
