"""Usable frames of a sequence, and whether they are aligned.

The limits are far from what the frames of a walk show: in rendered walkers with every fault, in street footage and in
released data a frame has at least 9 % of the picture and half the mass of the sequence's median frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.components import BODY_THRESHOLD, Body

NO_BODY = "frame without a body"
FAR_LESS = "frame with far less body than the others"
FILLED = "frame that is white nearly everywhere"

# A body in a mask of any size has at least so many rows, and its largest piece so many pixels.
LEAST_ROWS, LEAST_AREA = 10, 20
# A body has at least this share of the pixels of an aligned frame, ...
LEAST_MASS = 0.01
# ... at least this share of the mass of the sequence's median frame, ...
LEAST_OF_MEDIAN = 0.25
# ... and a frame that is white beyond this share is enlarged noise, or a picture whose background is white.
MOST_MASS = 0.75
# Before alignment, a body has at least this share of the median area of the frames around, so many on each side.
LEAST_OF_AROUND, AROUND = 0.1, 15
# In aligned sequences, the body reaches into so many first and last rows and its median column lies so near the middle.
EDGE_ROWS, NEAR_MIDDLE = 6, 10
# So many frames tell whether a sequence is aligned.
FRAMES_LOOKED_AT = 15


def is_body(body: Body | None) -> bool:
    """Tell whether what was found in a mask is large enough to be a person.

    Args:
        body: What was found.

    Returns:
        True for a body of at least 10 rows whose largest piece has at least 20 pixels.
    """
    return body is not None and body.height >= LEAST_ROWS and body.largest >= LEAST_AREA


def mass(silhouettes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the share of each frame that is body.

    Args:
        silhouettes: `[T, H, W]`.

    Returns:
        Mean brightness `[T]` in 0..1.
    """
    total = silhouettes.sum(axis=(1, 2), dtype=np.uint32)
    return np.asarray(total / (255.0 * silhouettes[0].size))


def faults_of_mass(silhouettes: NDArray[np.uint8]) -> dict[int, str]:
    """Find the frames of an aligned sequence that have far too little or too much body.

    Args:
        silhouettes: `[T, H, W]`.

    Returns:
        Reasons by the numbers of the frames.
    """
    if len(silhouettes) == 0:
        return {}
    # Most sequences are good, which a part of the rows tells at a quarter of the cost.
    estimate = mass(silhouettes[:, ::4])
    middle = _median(estimate)
    doubtful = (estimate < max(2 * LEAST_MASS, 2 * LEAST_OF_MEDIAN * middle)) | (estimate > MOST_MASS / 1.5)
    if not doubtful.any():
        return {}
    shares = mass(silhouettes)
    blank = shares < LEAST_MASS
    filled = shares > MOST_MASS
    possible = shares[~(blank | filled)]
    little = shares < LEAST_OF_MEDIAN * (_median(possible) if len(possible) else 0.0)
    bad = np.flatnonzero(blank | little | filled)
    return {int(t): NO_BODY if blank[t] else FAR_LESS if little[t] else FILLED for t in bad}


def faults_of_area(areas: NDArray[np.float64]) -> dict[int, str]:
    """Find the masks whose body has far less area than the ones around it.

    People who come nearer grow slowly, so that a frame is compared with the 15 before it and the 15 after it.

    Args:
        areas: Area `[T]` of the body of each frame.

    Returns:
        Reasons by the numbers of the frames.
    """
    if len(areas) == 0:
        return {}
    padded = np.pad(areas, AROUND, constant_values=np.nan)
    around = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1), axis=1)
    return {int(t): FAR_LESS for t in np.flatnonzero(areas < LEAST_OF_AROUND * around)}


def looks_aligned(silhouettes: NDArray[np.uint8]) -> bool:
    """Tell whether most frames of a sequence look aligned: the body fills the height and stands in the middle.

    Args:
        silhouettes: Frames `[T, H, W]`, each with a body.

    Returns:
        False if the body of most frames does not reach into the first and last 6 rows, or if its median column is
        usually more than 10 columns from the middle.
    """
    some = silhouettes[:: max(1, len(silhouettes) // FRAMES_LOOKED_AT)]
    fills = (some[:, :EDGE_ROWS].max(axis=(1, 2)) >= BODY_THRESHOLD // 2) & (
        some[:, -EDGE_ROWS:].max(axis=(1, 2)) >= BODY_THRESHOLD // 2
    )
    if 2 * int(fills.sum()) < len(some):
        return False
    cumulated = np.cumsum(some[:, ::2].sum(axis=1, dtype=np.uint32), axis=1)
    median = (2 * cumulated < cumulated[:, -1:]).sum(axis=1)
    return _median(np.abs(median - some.shape[2] // 2)) <= NEAR_MIDDLE


def _median(values: NDArray[np.generic]) -> float:
    """The middle value, without numpy's checks, which take longer than a short sort."""
    return float(np.sort(values)[len(values) // 2])
