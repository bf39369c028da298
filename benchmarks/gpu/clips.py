"""Clips of real people's silhouettes, and untrained networks for them."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.core import silhouettes
from hstl_fast import HSTL, PRESETS, HSTLConfig
from hstl_fast.models import Stage

WALKS = 6
# Clips of 30 frames that differ: each walk from its start, and from 30 frames later.
DISTINCT = 2 * WALKS
# The factor by which tiny networks are narrower than the published ones.
NARROWER = 8


def clips(n: int, frames: int) -> Tensor:
    """`[n, frames, 64, 44]` uint8; clip i shows the walk of clip i + 12 again."""
    return torch.stack([clip(i, frames) for i in range(n)])


def clip(index: int, frames: int) -> Tensor:
    """`[frames, 64, 44]` uint8; a walk that is too short starts again."""
    return silhouettes.clip(index % WALKS, index // WALKS % 2 * 30, frames)


def ragged(lengths: Sequence[int]) -> list[Tensor]:
    """One clip of each length."""
    return [clip(i, frames) for i, frames in enumerate(lengths)]


def config(preset: str, tiny: bool) -> HSTLConfig:
    """The published network, or the same with few channels and identities."""
    published = PRESETS[preset]
    if not tiny:
        return published
    stages = tuple(Stage(s.split, tuple(c // NARROWER for c in s.channels)) for s in published.stages)
    return replace(published, stem=tuple(c // NARROWER for c in published.stem), stages=stages, num_classes=6)


@functools.lru_cache(maxsize=8)
def model(preset: str, tiny: bool, seed: int = 0) -> HSTL:
    """An untrained network on the CPU, with batch norm statistics as if it had seen data."""
    torch.manual_seed(seed)
    built = HSTL(config(preset, tiny))
    for name, buffer in built.norm.named_buffers():
        if name == "running_mean":
            torch.nn.init.normal_(buffer, std=0.05)
        elif name == "running_var":
            torch.nn.init.uniform_(buffer, 0.9, 1.1)
    return built
