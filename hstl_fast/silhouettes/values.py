"""Values of masks: which number means the body follows from the range of a whole sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError

# Floating values this far outside 0..1 are rounding errors.
TOLERANCE = 1e-3
# The brightest pixel of masks of 16 bits is at least this: 255 shifted by 8 bits.
LEAST_OF_16_BITS, MOST_OF_16_BITS = 65280, 65535
EXPECTED = "expected bool, integers 0..1, 0..255 or 0..65535, or floats 0..1"


def to_uint8(values: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """Convert masks to uint8 0..255.

    Args:
        values: Array of any shape: bool; integers of any size, 0/1 if nothing is above 1, 0..255 if nothing is above
            255, or 0..65535 if the largest is 65280 or more; floats in 0..1 (to within 0.001); or floats that are whole
            numbers in 0..255.
        name: What the error calls the array.

    Returns:
        A new array of the same shape.

    Raises:
        SilhouetteError: Another dtype or range.
    """
    highest = largest(values, name)
    refuse_ambiguous(highest, name)
    return scaled(values, highest)


def largest(values: NDArray[np.generic], name: str) -> float:
    """Check an array's dtype and values, and find the largest.

    Args:
        values: Array of any shape.
        name: What the error calls the array.

    Returns:
        The largest value; at most 1 for masks 0..1.

    Raises:
        SilhouetteError: The dtype is no plain number type, or values are negative, not finite, or too large.
    """
    kind = values.dtype.kind
    if kind == "b":
        return float(values.any())
    if kind not in "iuf":
        raise SilhouetteError(f"{name}: {EXPECTED}, got dtype {values.dtype}")
    if values.size == 0:
        return 0.0
    if kind == "f":
        return _largest_float(values, name)
    high = int(values.max())
    if high > MOST_OF_16_BITS or (kind == "i" and int(values.min()) < 0):
        low = int(values.min())
        raise SilhouetteError(f"{name}: {EXPECTED}, got {values.dtype} in {low}..{high}")
    return float(high)


def _largest_float(values: NDArray[np.generic], name: str) -> float:
    floats = values if values.dtype.itemsize > 2 else values.astype(np.float32)
    low, high = float(floats.min()), float(floats.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SilhouetteError(f"{name}: expected floats in 0..1, got NaN or infinity")
    if low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return min(high, 1.0)
    if low >= 0 and high <= 255 and bool((floats == np.rint(floats)).all()):
        return high
    raise SilhouetteError(
        f"{name}: expected floats in 0..1 or whole numbers in 0..255, got values in {low:g}..{high:g}; divide them"
        " by the value that stands for the body"
    )


def refuse_ambiguous(highest: float, name: str) -> None:
    """Refuse a range that is neither 0..255 nor 0..65535.

    Args:
        highest: The largest value of a sequence.
        name: What the error calls the sequence.

    Raises:
        SilhouetteError: Nobody can tell which value stands for the body.
    """
    if 255 < highest < LEAST_OF_16_BITS:
        raise SilhouetteError(
            f"{name}: expected masks in 0..1, 0..255 or 0..65535, got values in 0..{highest:g}, of which nobody can"
            " tell how bright the body is; scale them to 0..255"
        )


def level(highest: float) -> int:
    """Number the ranges that masks come in.

    Args:
        highest: The largest value of a frame or sequence.

    Returns:
        0 for nothing but zeros, 1 for 0..1, 2 for 0..255 and 3 for 0..65535.
    """
    return 0 if highest <= 0 else 1 if highest <= 1 else 2 if highest <= 255 else 3


def scaled(values: NDArray[np.generic], highest: float) -> NDArray[np.uint8]:
    """Scale checked values to 0..255 by the range that their largest value belongs to.

    Args:
        values: Array of any shape that `largest` takes.
        highest: The largest value of the sequence.

    Returns:
        A new array of the same shape.
    """
    if values.dtype.kind == "f":
        factor = 255.0 if highest <= 1 else 1.0
        return np.rint(values.astype(np.float64) * factor).clip(0, 255).astype(np.uint8)
    if level(highest) == 3:
        return (values.astype(np.int64) // 257).astype(np.uint8)
    return values.astype(np.uint8) * np.uint8(255) if level(highest) == 1 else values.astype(np.uint8)
