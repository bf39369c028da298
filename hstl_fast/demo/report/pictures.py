"""Film strips: silhouettes as data URIs that a style sheet plays."""

import base64
import io

import numpy as np
from numpy.typing import NDArray

from hstl_fast.models.config import SIDE
from hstl_fast.silhouettes.extras import pillow

# A film strip has so many frames.
SHORTEST_LOOP, LONGEST_LOOP = 10, 40
_ENLARGED = 2
_SHADES = 16

Clip = NDArray[np.uint8]


def film_strip(clip: Clip) -> tuple[str, int]:
    """Draw the frames of a walk side by side, opaque where the body is, up to about where the walk repeats.

    Args:
        clip: Silhouettes `[T, 64, 64]` uint8; the 44 columns that the network sees are drawn.

    Returns:
        The picture as a data URI, and its number of frames.
    """
    loop = clip[: _loop(clip), :, SIDE:-SIDE]
    return _png(np.hstack([_enlarged(frame) for frame in loop])), len(loop)


def still(mean: NDArray[np.float64]) -> str:
    """Draw a mean silhouette, as opaque as the share of frames in which the body is there.

    Args:
        mean: Shares `[rows, columns]`, 0 to 1.

    Returns:
        The picture as a data URI.
    """
    return _png(_soft(np.rint(255 * mean).astype(np.uint8)))


def _loop(clip: Clip) -> int:
    """The number of frames after which the walk looks most like its beginning."""
    if len(clip) <= SHORTEST_LOOP:
        return len(clip)
    first = clip[0].astype(np.float64)
    later = clip[SHORTEST_LOOP : LONGEST_LOOP + 1]
    return SHORTEST_LOOP + int(np.argmin([np.square(frame - first).mean() for frame in later]))


def _enlarged(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same outline on a finer grid, its edge as steep there as it was before."""
    steep = ((_soft(frame).astype(np.float64) - 127.5) * _ENLARGED + 127.5).clip(0, 255)
    return np.asarray(np.rint(steep), dtype=np.uint8)


def _soft(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = pillow()
    columns, rows = frame.shape[1] * _ENLARGED, frame.shape[0] * _ENLARGED
    return np.asarray(image.fromarray(frame).resize((columns, rows), image.Resampling.BICUBIC))


def _png(mask: NDArray[np.uint8]) -> str:
    """A picture whose opacity is the mask's, in few shades: a style sheet gives it its colour."""
    levels = np.rint(mask / 255 * (_SHADES - 1)).astype(np.uint8)
    picture = pillow().fromarray(levels)
    picture.putpalette([0, 0, 0] * _SHADES)
    file = io.BytesIO()
    picture.save(file, "PNG", bits=4, optimize=True, transparency=bytes(range(0, 256, 255 // (_SHADES - 1))))
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
