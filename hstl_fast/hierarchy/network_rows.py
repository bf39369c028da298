"""Features of strips from a network: how alike the rows of a feature map are."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hstl_fast.hierarchy.feature_sets import Floats, cosines, standardised
from hstl_fast.models import HSTL
from hstl_fast.models.config import ROWS
from hstl_fast.models.inputs import repeated, scaled

# A sequence is computed in pieces of about so many frames, each by itself, so that memory does not grow with it.
FRAMES_OF_A_PIECE = 60


class NetworkRows:
    """Compares the strips of a body by the activations of a network.

    Args:
        model: The network.
        stage: The feature map: 0 for the output of the stem, whose convolutions know no regions, 1 and up for that of
            a stage, in whose weights the network's own regions already are.

    Raises:
        ValueError: The network has no such stage.
    """

    def __init__(self, model: HSTL, stage: int = 0) -> None:
        stages = len(model.config.stages)
        if not 0 <= stage <= stages:
            raise ValueError(f"stage must be 0 (the stem) to {stages}, got {stage}")
        self.model, self.stage = model, stage
        self.rows = model.config.rows if stage else ROWS

    @torch.no_grad()
    def __call__(self, silhouettes: NDArray[np.uint8], strips: int) -> Floats:
        """Compare the strips of a sequence.

        Args:
            silhouettes: `[T, 64, 44]` uint8.
            strips: Number of strips, a divisor of the rows of the feature map.

        Returns:
            `[strips, strips]`: the cosines of the strips' activations over channels and frames, each a mean over the
            rows and columns of the strip, each channel standardised over the strips and frames of the sequence. NaN
            where an activation is not finite.
        """
        pieces = np.array_split(silhouettes, -(-len(silhouettes) // FRAMES_OF_A_PIECE))
        activations = np.concatenate([self._activations(torch.as_tensor(piece), strips) for piece in pieces])
        if not np.isfinite(activations).all():
            return np.full((strips, strips), np.nan)
        t, c, _ = activations.shape
        by_channel = standardised(activations.transpose(2, 0, 1).reshape(strips * t, c))
        return cosines(by_channel.reshape(strips, t * c))

    def _activations(self, clip: Tensor, strips: int) -> Floats:
        """Means `[T, C, strips]` over the rows and columns of each strip."""
        model, like = self.model, self.model.parts.weight
        frames, _ = repeated(clip[None], [])
        x = scaled(frames.to(like.device), like.dtype)[:, None]
        for layer in model.stem:
            x = layer(x)
        if self.stage and model.config.pool:
            x = F.max_pool3d(x, (1, 2, 2))
        for i in range(self.stage):
            for layer in model.stages[i].children():
                x = layer(x)
            if i == 0 and self.stage > 1:
                x = model.fta(x)
        n, c, t, h, w = x.shape
        means = x.reshape(n, c, t, strips, h // strips, w).mean(dim=(4, 5))
        return means[0].permute(1, 0, 2).double().cpu().numpy()
