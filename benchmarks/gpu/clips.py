"""Real people's silhouettes and networks for them."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hstl_fast import HSTL, PRESETS, HSTLConfig, silhouettes
from hstl_fast.models import Stage

STREET = Path(__file__).parents[2] / "tests" / "data" / "street"
DISTINCT = 12
"""So many different clips there are of 30 frames: six walks, each from its start and from 30 frames later."""
NARROWER = 8
"""By how much tiny networks are narrower than the published ones."""


def clips(n: int, frames: int) -> Tensor:
    """`[n, frames, 64, 44]` uint8; clip i shows the walk of clip i + 12 again."""
    return torch.stack([clip(i, frames) for i in range(n)])


def clip(index: int, frames: int) -> Tensor:
    """`[frames, 64, 44]` uint8; a walk that is too short starts again."""
    walks = _walks()
    walk = walks[index % len(walks)]
    start = index // len(walks) % 2 * 30
    return torch.tensor(walk[(start + np.arange(frames)) % len(walk)])


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
    """An untrained network on the CPU, its batch norm as if it had seen something."""
    torch.manual_seed(seed)
    built = HSTL(config(preset, tiny))
    for name, buffer in built.norm.named_buffers():
        if name == "running_mean":
            torch.nn.init.normal_(buffer, std=0.05)
        elif name == "running_var":
            torch.nn.init.uniform_(buffer, 0.9, 1.1)
    return built


@functools.lru_cache
def _walks() -> list[np.ndarray]:
    walks = []
    for first in sorted(STREET.glob("gallery/*")):
        second = STREET / "probe" / f"{first.stem}.npz"
        walks.append(np.concatenate([silhouettes.read(path) for path in (first, second)])[:, :, 10:-10])
    return walks
