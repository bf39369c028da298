"""The gait-energy image: the simplest embedding of a walk, which networks are compared with. Needs numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.models.config import COLUMNS, ROWS, SIDE


def gait_energy_image(silhouettes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the mean silhouette of a walk (Han and Bhanu, 2006) as an embedding of one part.

    Args:
        silhouettes: Aligned silhouettes `[T, 64, 64]` uint8, of which the middle 44 columns are used, or `[T, 64, 44]`.

    Returns:
        `[1, 64 * 44]` float32, from 0 to 1.

    Raises:
        ValueError: The shape is another, or there is no frame.
    """
    if silhouettes.ndim != 3 or not len(silhouettes) or silhouettes.shape[1] != ROWS:
        raise ValueError(f"silhouettes must be [T, 64, 64] or [T, 64, 44]; got {list(silhouettes.shape)}")
    if silhouettes.shape[2] == COLUMNS + 2 * SIDE:
        silhouettes = silhouettes[:, :, SIDE:-SIDE]
    elif silhouettes.shape[2] != COLUMNS:
        raise ValueError(f"silhouettes must be [T, 64, 64] or [T, 64, 44]; got {list(silhouettes.shape)}")
    image: NDArray[np.float32] = silhouettes.mean(axis=0, dtype=np.float32) / 255
    return image.reshape(1, -1)
