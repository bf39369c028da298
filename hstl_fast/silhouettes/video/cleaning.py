"""Silhouettes of blobs, and which frames of a run show a whole body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.align import BODY_THRESHOLD, align
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.tracking import WINDOW

# Outlines are smoothed on a grid of about this many rows per body before they are aligned.
FINE_ROWS = 256
# The outline is smoothed by a Gaussian of this many pixels of the video.
OUTLINE_SIGMA = 0.8
# Head and trunk lie in this many rows of a silhouette, from the top; a walk changes little in them.
ABOVE_LEGS = 36
# The core of a body is what at least the first share of the frames around it cover; a body that is not torn covers at
# least the second share of its core.
CORE, CORE_COVERAGE = 0.8, 0.9


def silhouette_of(blob: Blob) -> NDArray[np.uint8]:
    """Align a blob.

    Args:
        blob: A blob with a body's shape.

    Returns:
        The silhouette `[64, 64]` uint8 of its smoothed outline.
    """
    return align(_smooth_outline(blob.mask))


def untorn_frames(silhouettes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bool `[T]`: whether head and trunk cover what they cover in nearly all frames around.

    A body behind a post, or in front of its own colour, does not.
    """
    bodies = silhouettes[:, :ABOVE_LEGS] >= BODY_THRESHOLD
    covered = np.empty(len(bodies))
    for t in range(len(bodies)):
        around = bodies[max(0, t - WINDOW // 2) : t + WINDOW // 2 + 1]
        core = around.mean(axis=0) >= CORE
        covered[t] = bodies[t][core].mean() if core.any() else 1.0
    return covered >= CORE_COVERAGE


def _smooth_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The body on a finer grid, without the stairs of the video's pixels."""
    cv2 = opencv()
    fineness = -(-FINE_ROWS // mask.shape[0])
    soft = cv2.GaussianBlur(np.pad(mask, 4).astype(np.float32), (0, 0), OUTLINE_SIGMA)
    fine = cv2.resize(soft, None, fx=fineness, fy=fineness, interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine > 0.5)
