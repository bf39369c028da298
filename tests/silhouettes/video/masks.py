"""Masks and blobs of people drawn as rectangles."""

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.video.blobs import Blob, find_blobs


def scene(*people: tuple[int, int], size: tuple[int, int] = (70, 24)) -> NDArray[np.bool_]:
    """A mask `[120, 300]` with a body of `size` (height, width) at every (top, left)."""
    mask = np.zeros((120, 300), bool)
    for top, left in people:
        mask[top : top + size[0], left : left + size[1]] = True
    return mask


def blobs_of(masks: list[NDArray[np.bool_]]) -> list[list[Blob]]:
    return [find_blobs(mask, t, 48) for t, mask in enumerate(masks)]
