"""Silhouettes of real people, cut from footage of a street."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hstl_fast import silhouettes

STREET = Path(__file__).parents[2] / "tests" / "data" / "street"


def clip(walk: int, start: int, frames: int) -> Tensor:
    """`[frames, 64, 44]` uint8 from frame `start` of a walk on; the walk, and the walks, come round again."""
    walks = all_walks()
    frames_of_walk = walks[walk % len(walks)]
    return torch.tensor(frames_of_walk[(start + np.arange(frames)) % len(frames_of_walk)])


@functools.lru_cache
def all_walks() -> list[np.ndarray]:
    """The six walks `[t, 64, 44]`; the second half of each follows its first."""
    walks = []
    for first in sorted(STREET.glob("gallery/*")):
        second = STREET / "probe" / f"{first.stem}.npz"
        walks.append(np.concatenate([silhouettes.read(path) for path in (first, second)])[:, :, 10:-10])
    return walks
