"""Segmentation faults, added to the distance field of a clean outline.

They come, stay for some frames and go, as they do in footage.
"""

from __future__ import annotations

import numpy as np

from hstl_fast.silhouettes.walkers.body import Draws, Purpose
from hstl_fast.silhouettes.walkers.raster import COLUMNS, FAR, ROWS, Field

# An outline moves by so many pixels at most: slowly in waves of 5 pixels, and from frame to frame in waves of 2.
RAGGED, FINE_RAGGED = 1.8, 1.0
# One unit of the noise that makes holes is so many pixels of distance.
HOLE_STEEPNESS = 12.0
# A lost part or a blob lasts so many frames.
EPISODE = 5
# There are at most so many blobs at a time.
BLOBS = 3


def spoil(field: Field, noise: float, key: tuple[int, ...]) -> Field:
    """Add faults to a distance field.

    Args:
        field: Distance field `[T, ROWS, COLUMNS]`.
        noise: Amount of faults, above 0 to 1.
        key: Integers that the random numbers follow from.

    Returns:
        A distance field of the same shape.
    """
    draws = [Draws(Purpose.NOISE, *key, fault) for fault in range(5)]
    ragged = _waves(draws[0], len(field), frames=3, pixels=5) * np.float32(RAGGED * noise)
    ragged += _waves(draws[1], len(field), frames=1, pixels=2) * np.float32(FINE_RAGGED * noise)
    holes = _waves(draws[2], len(field), frames=4, pixels=7) - np.float32(1 - 0.45 * noise)
    spoilt = np.maximum(field + ragged, holes * np.float32(HOLE_STEEPNESS))
    spoilt = np.maximum(spoilt, _lost_feet(draws[3], len(field), noise))
    return np.asarray(np.minimum(spoilt, _blobs(draws[4], len(field), noise)))


def _waves(draws: Draws, t: int, frames: int, pixels: int) -> Field:
    """Smooth noise in -1..1, `[t, ROWS, COLUMNS]`: random values on a grid, interpolated smoothly."""
    grid = draws.array(t // frames + 2, ROWS // pixels + 2, COLUMNS // pixels + 2)
    for axis, length, step in ((0, t, frames), (1, ROWS, pixels), (2, COLUMNS, pixels)):
        grid = _interpolated(grid, axis, length, step)
    return grid


def _interpolated(grid: Field, axis: int, length: int, step: int) -> Field:
    at = np.arange(length)
    u = (at % step / step).astype(np.float32)
    u = u * u * (3 - 2 * u)
    shape = [-1 if a == axis else 1 for a in range(3)]
    low, high = np.take(grid, at // step, axis), np.take(grid, at // step + 1, axis)
    return np.asarray(low + u.reshape(shape) * (high - low), np.float32)


def _episodes(draws: Draws, t: int, values: int) -> Field:
    """Random values `[t, values]` in 0..1 that stay for EPISODE frames."""
    each = draws.array(t // EPISODE + 1, values)
    return np.asarray((each[np.arange(t) // EPISODE] + 1) / 2, np.float32)


def _lost_feet(draws: Draws, t: int, noise: float) -> Field:
    """A distance field `[t, ROWS, 1]` that is positive in the lowest rows where they are lost, as in a shadow."""
    happens, depth = _episodes(draws, t, 2).T
    cut = np.where(happens < 0.4 * noise, ROWS - 2 - 8 * noise * depth, 2 * ROWS).astype(np.float32)
    return np.asarray(np.arange(ROWS, dtype=np.float32)[:, None] - cut[:, None, None])


def _blobs(draws: Draws, t: int, noise: float) -> Field:
    field = np.full((t, ROWS, COLUMNS), FAR, np.float32)
    rows, columns = np.arange(ROWS, dtype=np.float32)[:, None], np.arange(COLUMNS, dtype=np.float32)
    for happens, row, column, radius in np.split(_episodes(draws, t, 4 * BLOBS).T, BLOBS):
        size = np.where(happens < 0.3 * noise, 1 + 3 * noise * radius, -FAR).astype(np.float32)[:, None, None]
        down = (rows - (4 + (ROWS - 4) * row.astype(np.float32))[:, None, None]) * np.float32(1.5)
        across = columns - (COLUMNS * (0.25 + 0.5 * column)).astype(np.float32)[:, None, None]
        field = np.minimum(field, np.sqrt(down * down + across * across) - size)
    return field
