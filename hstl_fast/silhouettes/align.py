"""Alignment of silhouettes: the body fills the height of the frame, the median column of its mass is in the centre."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.components import BODY_THRESHOLD, Body, find_body, find_bright_rows
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.usable import faults_of_area, faults_of_mass, is_body
from hstl_fast.silhouettes.values import to_uint8

__all__ = ["BODY_THRESHOLD", "align", "align_body", "align_bright_rows", "align_sequence"]


def align(mask: NDArray[np.generic], size: int = 64) -> NDArray[np.uint8]:
    """Align the mask of one person, as OpenGait prepares gait data sets.

    The mask is cropped to the rows of the body (pixels of 128 or more), resized along both axes by `size / height` with
    a triangle filter as wide as an output pixel (soft edges, no aliasing), moved so that the median column of its mass
    is column `size // 2`, and cut or padded to `size` columns. An aligned silhouette no wider than the frame comes back
    unchanged. The rows of the body are those of the largest connected piece, of pieces of at least a twentieth of its
    area, and of pieces of at least a two-hundredth above or below, within a quarter of its height: specks of noise
    above a head do not shrink the body.

    Args:
        mask: `[H, W]` of any size: bool; integers 0/1, 0..255 or, if the largest is 65280 or more, 0..65535; or floats
            in 0..1 (to within 0.001), or in 0..255 if they are whole numbers.
        size: Rows and columns of the result, 2 or more.

    Returns:
        The silhouette `[size, size]` uint8, 0 background to 255 body.

    Raises:
        SilhouetteError: The mask has another rank or dtype, values out of range, or no body in it.
        ValueError: `size` is below 2. (SilhouetteError is a ValueError, too.)
    """
    _check_size(size)
    if mask.ndim != 2:
        raise SilhouetteError(f"mask: expected [H, W], got shape {list(mask.shape)}")
    values = to_uint8(mask, "mask")
    body = find_body(values)
    if body is None:
        raise SilhouetteError(
            f"mask: expected a body, got a mask {list(mask.shape)} with no pixel of {BODY_THRESHOLD} or more"
        )
    return align_body(values, body, size)


def align_body(mask: NDArray[np.uint8], body: Body, size: int = 64) -> NDArray[np.uint8]:
    """Align a mask in which the body was found.

    Args:
        mask: `[H, W]`, 0 background to 255 body.
        body: What `find_body` finds in it.
        size: Rows and columns of the result.

    Returns:
        The silhouette `[size, size]`.
    """
    return _centre(_fill_height(mask, body, size, find_body), size)


def align_bright_rows(mask: NDArray[np.uint8], size: int = 64) -> NDArray[np.uint8]:
    """Align a mask by all rows with a pixel of 128 or more, specks of noise included.

    Args:
        mask: `[H, W]`, 0 background to 255 body, with such a pixel.
        size: Rows and columns of the result.

    Returns:
        The silhouette `[size, size]`.
    """
    body = find_bright_rows(mask)
    assert body is not None
    return _centre(_fill_height(mask, body, size, find_bright_rows), size)


def align_sequence(masks: NDArray[np.generic], size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Align every frame of a sequence; frames without a person are dropped.

    A frame is dropped if its body has fewer than 10 rows or no connected piece of 20 pixels, if its area is less than a
    tenth of the median of the 15 frames before and after it, or if its aligned silhouette has less than 1 % of the
    pixels, less than a quarter of the median frame, or more than 75 % (noise enlarged, a white background).

    Args:
        masks: `[T, H, W]`, dtypes as in `align`.
        size: Rows and columns of the result, 2 or more.

    Returns:
        The silhouettes `[K, size, size]` uint8 and the indices `[K]` of the frames that were kept.

    Raises:
        SilhouetteError: `align` refuses a frame, or no frame has a body in it.
        ValueError: `size` is below 2.
    """
    _check_size(size)
    if masks.ndim != 3:
        raise SilhouetteError(f"masks: expected [T, H, W], got shape {list(masks.shape)}")
    frames = to_uint8(masks, "masks")
    found = [(t, body) for t, frame in enumerate(frames) if is_body(body := find_body(frame)) and body is not None]
    faults = faults_of_area(np.array([body.area for _, body in found], np.float64))
    found = [each for i, each in enumerate(found) if i not in faults]
    aligned = [align_body(frames[t], body, size) for t, body in found]
    faults = faults_of_mass(np.array(aligned))
    good = [i for i in range(len(found)) if i not in faults]
    if not good:
        raise SilhouetteError(f"masks: expected a body in at least one frame, got {len(frames)} frames without one")
    return np.stack([aligned[i] for i in good]), np.array([found[i][0] for i in good], np.intp)


def _check_size(size: int) -> None:
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")


def _fill_height(
    mask: NDArray[np.uint8], body: Body, size: int, find: Callable[[NDArray[np.uint8]], Body | None]
) -> NDArray[np.uint8]:
    """The body resized to `size` rows.

    Rows so thin that resizing loses them are cropped away, too: the body then touches the first and last row of the
    result, which makes alignment idempotent.
    """
    rows, found = mask, body
    while True:
        rows = _columns_in_reach(rows[found.top : found.bottom + 1])
        scaled = _resize(rows, size)
        result = find(scaled)
        top, bottom = (result.top > 0, result.bottom < size - 1) if result else (True, True)
        rows = rows[int(top) : len(rows) - int(bottom)]
        shorter = find(rows) if (top or bottom) and rows.size else None
        if shorter is None:
            return scaled
        found = shorter


def _columns_in_reach(body: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The body without empty columns at its sides and without columns more than two heights from the median column.

    The latter never reach the frame, and a wide flat shape would be enlarged to a huge picture.
    """
    reach, middle = 2 * len(body), _median_column(body)
    body = body[:, max(0, middle - reach) : middle + reach + 1]
    columns = np.flatnonzero(body.any(axis=0))
    return body[:, columns[0] : columns[-1] + 1]


def _resize(image: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """`image [h, w]` resized to `rows` rows and, by the same factor, as many columns as hold all of it."""
    step = image.shape[0] / rows
    margin = 2 * int(np.ceil(max(step, 1.0)))
    padded = np.pad(image, ((0, 0), (margin, margin))).astype(np.float64)
    columns = int(np.ceil(padded.shape[1] / step))
    shrunk = _sample_rows(padded, rows, step)
    return np.rint(_sample_rows(shrunk.T, columns, step).T).clip(0, 255).astype(np.uint8)


def _sample_rows(image: NDArray[np.float64], n_out: int, step: float) -> NDArray[np.float64]:
    """`n_out` rows, `step` rows of `image` apart, each averaged under a triangle of half-width `max(step, 1)`."""
    reach = max(step, 1.0)
    centres = (np.arange(n_out) + 0.5) * step - 0.5
    taps = np.floor(centres - reach).astype(np.intp)[:, None] + np.arange(1, 2 * int(np.ceil(reach)) + 2)
    weights = np.maximum(0.0, 1.0 - np.abs(taps - centres[:, None]) / reach)
    weights[(taps < 0) | (taps >= len(image))] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    rows = image[taps.clip(0, len(image) - 1)]
    return np.asarray((rows * weights[..., None]).sum(axis=1))


def _centre(scaled: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`size` columns of `scaled [size, w]` with the median column of the mass at column `size // 2`."""
    padded = np.pad(scaled, ((0, 0), (size, size)))
    left = _median_column(scaled) + size - size // 2
    return np.ascontiguousarray(padded[:, left : left + size])


def _median_column(image: NDArray[np.uint8]) -> int:
    """The first column up to which at least half of the mass lies."""
    cumulated = np.cumsum(image.sum(axis=0, dtype=np.int64))
    return int(np.searchsorted(cumulated, cumulated[-1] / 2))
