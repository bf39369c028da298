"""The inputs of a network: silhouettes and clips, checked, cropped, packed and repeated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hstl_fast.layout import FLOATING
from hstl_fast.models.config import COLUMNS, FEWEST_FRAMES, ROWS, SIDE
from hstl_fast.ops import _checks


def check_silhouettes(
    silhouettes: object, seq_lens: _checks.Lengths | None, check_on_gpu: bool
) -> tuple[Tensor, list[int]]:
    """The silhouettes `[N, T, 64, 44]` and the packed lengths (empty if they are not packed), checked.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    if not isinstance(silhouettes, Tensor):
        raise TypeError(f"silhouettes must be a tensor [N, T, 64, 44], got {_checks.type_name(silhouettes)}")
    shape = list(silhouettes.shape)
    if len(shape) != 4 or shape[2:] != [ROWS, COLUMNS] or 0 in shape:
        raise ValueError(f"silhouettes must have the shape [N, T, {ROWS}, {COLUMNS}], got {shape}")
    if silhouettes.layout is not torch.strided:
        raise TypeError(f"silhouettes must be a dense tensor, got {silhouettes.layout}; call .to_dense() on it")
    silhouettes = silhouettes.resolve_neg()
    check_values(silhouettes, "silhouettes", check_on_gpu)
    if seq_lens is not None and shape[0] != 1:
        raise ValueError(
            f"silhouettes must be packed as [1, sum(seq_lens), {ROWS}, {COLUMNS}] beside seq_lens, got {shape}"
        )
    return silhouettes, _checks.lengths(seq_lens, silhouettes[:, None])


def check_values(silhouettes: Tensor, name: str, check_on_gpu: bool) -> None:
    """Raise TypeError or ValueError, naming the argument `name`, unless values are uint8, or floating in 0..1.

    On an accelerator floating values are looked at only if `check_on_gpu`, since that waits for the device.
    """
    if silhouettes.dtype == torch.uint8:
        return
    if silhouettes.dtype not in FLOATING:
        raise TypeError(f"{name} must be uint8 0..255 or floating 0..1, got {silhouettes.dtype}")
    if silhouettes.device.type != "cpu" and not check_on_gpu:
        return
    if not _checks.has_values(silhouettes):
        return
    low, high = (value.item() for value in silhouettes.detach().aminmax())
    if not (low >= 0 and high <= 1):
        found = "NaN" if low != low else f"values in {low:g}..{high:g}"
        raise ValueError(f"{name} of {silhouettes.dtype} must lie in 0..1 (0..255 is for uint8), got {found}")


def check_clips(clips: Iterable[Any], check_on_gpu: bool) -> Iterator[Tensor]:
    """The clips as tensors `[T_i, 64, 44]`, one after another; errors name the clip's position."""
    for i, clip in enumerate(clips):
        name = f"clips[{i}]"
        if isinstance(clip, np.ndarray):
            clip = _tensor(clip, name)
        if not isinstance(clip, Tensor):
            raise TypeError(f"{name} must be an array or a tensor [T, 64, 44 or 64], got {type(clip).__name__}")
        shape = list(clip.shape)
        if len(shape) != 3 or shape[1] != ROWS or shape[2] not in (COLUMNS, COLUMNS + 2 * SIDE) or 0 in shape:
            raise ValueError(f"{name} must have the shape [T, {ROWS}, 44 or 64] with T >= 1, got {shape}")
        if clip.layout is not torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got {clip.layout}; call .to_dense() on it")
        clip = clip.resolve_neg()
        check_values(clip, name, check_on_gpu)
        yield clip if clip.shape[2] == COLUMNS else clip[:, :, SIDE:-SIDE]


def _tensor(clip: np.ndarray, name: str) -> Tensor:
    try:
        return torch.tensor(np.ascontiguousarray(clip))  # torch refuses mirrored views
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be uint8 0..255 or floating 0..1, got an array of {clip.dtype}") from None


def batches(clips: Iterable[Tensor], max_frames: int) -> Iterator[list[Tensor]]:
    """The clips, in order, in batches of at most `max_frames` frames; a longer clip goes alone."""
    batch: list[Tensor] = []
    frames = 0
    for clip in clips:
        if batch and frames + len(clip) > max_frames:
            yield batch
            batch, frames = [], 0
        batch.append(clip)
        frames += len(clip)
    if batch:
        yield batch


def pack(clips: list[Tensor], like: Tensor) -> Tensor:
    """The clips along time, `[1, T, 64, 44]`, where they are, or on the device of `like` if they are on several.

    They stay bytes if all are; otherwise they become 0..1 in the type of `like`.
    """
    if len({clip.device for clip in clips}) > 1:
        clips = [clip.to(like.device) for clip in clips]
    if any(clip.dtype != torch.uint8 for clip in clips):
        clips = [scaled(clip, like.dtype) for clip in clips]
    return (clips[0] if len(clips) == 1 else torch.cat(clips))[None]


def scaled(silhouettes: Tensor, dtype: torch.dtype) -> Tensor:
    """Silhouettes as `dtype` in 0..1."""
    return silhouettes.to(dtype).div_(255) if silhouettes.dtype == torch.uint8 else silhouettes.to(dtype)


def repeated(silhouettes: Tensor, lengths: list[int]) -> tuple[Tensor, list[int]]:
    """Every sequence after itself until it has 3 frames: 1 becomes 0, 0, 0 and 2 becomes 0, 1, 0, 1."""
    if all(t >= FEWEST_FRAMES for t in lengths or [silhouettes.shape[1]]):
        return silhouettes, lengths
    if not lengths:
        return torch.cat([silhouettes] * -(-FEWEST_FRAMES // silhouettes.shape[1]), 1), lengths
    counts = [-(-FEWEST_FRAMES // t) for t in lengths]
    sequences = silhouettes.split(lengths, 1)
    longer = torch.cat([sequence for sequence, count in zip(sequences, counts) for _ in range(count)], 1)
    return longer, [t * count for t, count in zip(lengths, counts)]
