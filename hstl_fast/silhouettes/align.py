"""Alignment of silhouettes: the body fills the height of the frame, the median column of its mass is in the centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError

# A pixel at least this bright belongs to the body when its top and bottom rows are searched.
BODY_THRESHOLD = 128


def align(mask: NDArray[np.generic], size: int = 64) -> NDArray[np.uint8]:
    """Align the mask of one person, as OpenGait prepares gait data sets.

    The mask is cropped to the rows of the body (pixels of 128 or more), resized along both axes by `size / height` with
    a triangle filter as wide as an output pixel (soft edges, no aliasing), moved so that the median column of its mass
    is column `size // 2`, and cut or padded to `size` columns. An aligned silhouette no wider than the frame comes back
    unchanged.

    Args:
        mask: `[H, W]` of any size: uint8 0..255 (with nothing above 1 it counts as 0/1), bool, or floating 0..1.
        size: Rows and columns of the result, 2 or more.

    Returns:
        The silhouette `[size, size]` uint8, 0 background to 255 body.

    Raises:
        SilhouetteError: The mask has another rank or dtype, values out of range, or no body in it.
        ValueError: `size` is below 2. (SilhouetteError is a ValueError, too.)
    """
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    if mask.ndim != 2:
        raise SilhouetteError(f"mask: expected [H, W], got shape {list(mask.shape)}")
    body = to_uint8(mask, "mask")
    if body.max(initial=0) < BODY_THRESHOLD:
        raise SilhouetteError(
            f"mask: expected a body, got a mask {list(mask.shape)} with no pixel of {BODY_THRESHOLD} or more"
        )
    return _centre(_fill_height(body, size), size)


def align_sequence(masks: NDArray[np.generic], size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Align every frame of a sequence; frames without a body are dropped.

    Args:
        masks: `[T, H, W]`, dtypes as in `align`.
        size: Rows and columns of the result, 2 or more.

    Returns:
        The silhouettes `[K, size, size]` uint8 and the indices `[K]` of the frames that were kept.

    Raises:
        SilhouetteError: `align` refuses a frame, or no frame has a body in it.
        ValueError: `size` is below 2.
    """
    if masks.ndim != 3:
        raise SilhouetteError(f"masks: expected [T, H, W], got shape {list(masks.shape)}")
    frames = to_uint8(masks, "masks")
    kept = np.flatnonzero(frames.max(axis=(1, 2), initial=0) >= BODY_THRESHOLD)
    if len(kept) == 0:
        raise SilhouetteError(f"masks: expected a body in at least one frame, got {len(frames)} frames without one")
    return np.stack([align(frames[t], size) for t in kept]), kept


def to_uint8(values: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """Convert masks to uint8 0..255.

    Args:
        values: Array of any shape: uint8 (with nothing above 1 it counts as 0/1), bool, or floating 0..1.
        name: What the error calls the array.

    Returns:
        An array of the same shape; 1 and True become 255.

    Raises:
        SilhouetteError: Another dtype, or floating values outside 0..1.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        only_zero_one = values.size > 0 and values.max() == 1
        return values.astype(np.uint8) * np.uint8(255 if only_zero_one else 1)
    if np.issubdtype(values.dtype, np.floating):
        return _unit_floats_to_uint8(values, name)
    raise SilhouetteError(f"{name}: expected uint8, bool or floats in 0..1, got dtype {values.dtype}")


def _unit_floats_to_uint8(values: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all():
        raise SilhouetteError(f"{name}: expected floats in 0..1, got NaN or infinity")
    if floats.size and (floats.min() < 0 or floats.max() > 1):
        raise SilhouetteError(f"{name}: expected floats in 0..1, got values in {floats.min():g}..{floats.max():g}")
    return np.rint(floats * 255).astype(np.uint8)


def _fill_height(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The body resized to `size` rows.

    Rows so thin that resizing loses them are cropped away, too: the body then touches the first and last row of the
    result, which makes alignment idempotent.
    """
    body = mask
    while True:
        rows = np.flatnonzero(body.max(axis=1) >= BODY_THRESHOLD)
        body = _columns_in_reach(body[rows[0] : rows[-1] + 1])
        scaled = _resize(body, size)
        top, bottom = scaled[0].max() >= BODY_THRESHOLD, scaled[-1].max() >= BODY_THRESHOLD
        shorter = body[int(not top) : len(body) - int(not bottom)]
        if (top and bottom) or shorter.max(initial=0) < BODY_THRESHOLD:
            return scaled
        body = shorter


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
