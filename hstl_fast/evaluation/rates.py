"""Frame rates of a gallery and of probes, which a network compares badly where they differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Frame rates that differ by no more than this factor count as equal.
SAME_RATE = 1.1


def compared_rates(gallery: NDArray[np.float64], probe: NDArray[np.float64]) -> str | None:
    """Write a sentence about frame rates of gallery and probes that differ, where both are known.

    Args:
        gallery: Frames per second of the gallery's sequences, NaN where unknown.
        probe: Those of the probes.

    Returns:
        The sentence, or None where no two known rates of both sides differ by more than a tenth.
    """
    sides = [side[np.isfinite(side)] for side in (gallery, probe)]
    if not all(len(rates) for rates in sides):
        return None
    (g_low, g_high), (p_low, p_high) = ((float(rates.min()), float(rates.max())) for rates in sides)
    if max(g_high / p_low, p_high / g_low) <= SAME_RATE:
        return None
    return (
        f"the gallery was filmed at {_range(g_low, g_high)} frames per second and the probes at "
        f"{_range(p_low, p_high)}; a network that was trained at one rate compares walks of another badly"
    )


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
