"""Random changes of the silhouettes of a training, the same for all frames of a sequence. Needs the extra `[train]`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hstl_fast.silhouettes import extras


@dataclass(frozen=True)
class Augmentation:
    """Probabilities of the changes, which are made in this order; by default none is made.

    Attributes:
        flip: Mirror the columns.
        perspective: Move the corners of the frame by up to a tenth of its sides (Kornia's `RandomPerspective`).
        affine: Turn by up to 10 degrees, move by up to a twentieth of the sides (Kornia's `RandomAffine`).
        erasing: Blank a rectangle of 2 to 20 % of the frame (Kornia's `RandomErasing`).
    """

    flip: float = 0.0
    perspective: float = 0.0
    affine: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            probability = getattr(self, field.name)
            if not 0 <= probability <= 1:
                raise ValueError(f"{field.name} must be a probability in 0..1; got {probability}")

    @property
    def changes(self) -> bool:
        """Whether anything is ever changed."""
        return any(getattr(self, field.name) > 0 for field in fields(self))

    def __call__(self, silhouettes: Tensor, generator: np.random.Generator) -> Tensor:
        """Change a sequence.

        Args:
            silhouettes: `[T, H, W]` uint8.
            generator: The source of random numbers.

        Returns:
            The changed silhouettes `[T, H, W]` uint8.

        Raises:
            ImportError: Kornia is missing, from the extra `[train]`.
        """
        if not self.changes:
            return silhouettes
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the generators of GPUs, too, which a training draws from.
            torch.default_generator.manual_seed(int(generator.integers(2**63)))
            changed: Tensor = _transforms(self)(silhouettes[:, None] / 255)
        return changed[:, 0].mul(255).round().clamp(0, 255).to(torch.uint8)


@functools.cache
def _transforms(chances: Augmentation) -> Any:
    kornia = extras.kornia()
    together = {"same_on_batch": True}
    return torch.nn.Sequential(
        kornia.RandomHorizontalFlip(p=chances.flip, **together),
        kornia.RandomPerspective(0.2, p=chances.perspective, **together),
        kornia.RandomAffine(10.0, translate=(0.05, 0.05), p=chances.affine, **together),
        kornia.RandomErasing(scale=(0.02, 0.2), ratio=(0.3, 3.3), p=chances.erasing, **together),
    )
