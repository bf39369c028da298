"""Features of strips of the body, measured on one sequence of silhouettes at a time.

docs/hierarchy.md has the formulae. A strip is `rows / strips` neighbouring rows; the first is the head. `x` is a
sequence `[T, 64, 44]`, 0 background to 1 body. What a sequence cannot tell, such as the rhythm of a strip in which
nothing moves, is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The columns of the average silhouette are joined to so many bins, 4 columns each.
SHAPE_BINS = 11
# Shorter sequences say nothing about motion. At 25 frames a second a step takes 12 to 16 frames.
FEWEST_FRAMES_FOR_MOTION = 8
_SHORTEST_LAG = 4
# From here on a pixel is part of the body where its outline is measured.
_INSIDE = 0.5
# Spreads below this are rounding.
_NOTHING = 1e-9


class Series(NamedTuple):
    """How strips change over time, each `[T, strips]`.

    Attributes:
        mass: Share of the strip that is body.
        width: Mean over the rows of the distance from the first to the last body pixel, as a share of the columns; 0
            in rows without any.
        centre: Column of the centre of mass as a share of the columns, 0 in the middle; where a strip is empty, its
            mean over the other frames.
    """

    mass: Floats
    width: Floats
    centre: Floats


def series_of(x: Floats, strips: int) -> Series:
    """Measure the strips of every frame.

    Args:
        x: Silhouettes `[T, rows, columns]`, 0 to 1.
        strips: Number of strips, a divisor of the rows.

    Returns:
        The series.
    """
    t, rows, columns = x.shape
    parts = x.reshape(t, strips, rows // strips, columns)
    inside = parts >= _INSIDE
    first, last = inside.argmax(axis=-1), columns - 1 - inside[..., ::-1].argmax(axis=-1)
    widths = np.where(inside.any(axis=-1), last - first + 1, 0) / columns
    by_column = parts.sum(axis=2)
    mass = by_column.sum(axis=-1)
    places = (np.arange(columns) - (columns - 1) / 2) / columns
    filled = mass > 0
    centre = np.divide(by_column @ places, mass, out=np.zeros_like(mass), where=filled)
    usual = centre.sum(axis=0) / np.maximum(filled.sum(axis=0), 1)
    return Series(mass / (rows // strips * columns), widths.mean(axis=-1), np.where(filled, centre, usual[None]))


def shape(x: Floats, strips: int) -> Floats:
    """Measure what a strip looks like: its row of the average silhouette.

    Args:
        x: Silhouettes `[T, 64, 44]`.
        strips: Number of strips.

    Returns:
        `[strips, 11]`: means over the frames, the rows of the strip, and four columns at a time.
    """
    t, rows, columns = x.shape
    bins = x.reshape(t, strips, rows // strips, SHAPE_BINS, columns // SHAPE_BINS)
    found: Floats = bins.mean(axis=(0, 2, 4))
    return found


def motion(x: Floats, strips: int) -> Floats:
    """Measure how much a strip moves, in which way, and how regularly.

    Args:
        x: Silhouettes `[T, 64, 44]` of at least 8 frames.
        strips: Number of strips.

    Returns:
        `[strips, 6]`: the deviations over time of mass, width and centre; the mean change from frame to frame; the same
        divided by the mass; and the correlation of the width with itself a step later. Each is standardised over the
        strips of this sequence, so that views with much motion do not outweigh the others.
    """
    series = series_of(x, strips)
    change = np.abs(np.diff(x, axis=0)).reshape(len(x) - 1, strips, -1).mean(axis=(0, 2))
    mass = series.mass.mean(axis=0)
    by_mass = np.divide(change, mass, out=np.zeros_like(change), where=mass > 0)
    spreads = [values.std(axis=0) for values in series]
    return standardised(np.stack([*spreads, change, by_mass, _rhythm(series.width)], axis=1))


def coherence(x: Floats, strips: int) -> Floats:
    """Measure which strips move together.

    Args:
        x: Silhouettes `[T, 64, 44]` of at least 8 frames.
        strips: Number of strips.

    Returns:
        `[strips, strips]`: the mean of the correlations over time of two strips' mass, width and centre; 1 on the
        diagonal, 0 for a strip that does not change.
    """
    found: Floats = np.mean([_correlations(values) for values in series_of(x, strips)], axis=0)
    np.fill_diagonal(found, 1)
    return found


def standardised(features: Floats) -> Floats:
    """Give every feature a mean of 0 and a deviation of 1 over the strips; one that does not vary becomes 0."""
    centred = features - features.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled: Floats = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > _NOTHING)
    return scaled


def cosines(rows: Floats) -> Floats:
    """Compare rows `[n, d]` by the cosine, `[n, n]`; 0 for a row of zeros."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > _NOTHING)
    found: Floats = directions @ directions.T
    return found


def _correlations(values: Floats) -> Floats:
    """Correlations over time `[strips, strips]` of a series `[T, strips]`."""
    return cosines((values - values.mean(axis=0)).T)


def _rhythm(width: Floats) -> Floats:
    """The correlation of a strip's width with itself a step later, `[strips]`; 0 where no step is found.

    A step takes the number of frames at which the correlations of all strips, weighted by their variances, have their
    highest peak.
    """
    lags = range(_SHORTEST_LAG, len(width) // 2 + 1)
    pairs = [_lagged(width, lag) for lag in lags]
    sums = [covariance.sum() / max(scale.sum(), _NOTHING) for covariance, scale in pairs]
    peaks = [i for i in range(1, len(sums) - 1) if sums[i - 1] < sums[i] >= sums[i + 1]]
    if not peaks:
        return np.zeros(width.shape[1])
    covariance, scale = pairs[max(peaks, key=lambda i: sums[i])]
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > _NOTHING)


def _lagged(width: Floats, lag: int) -> tuple[Floats, Floats]:
    """The covariance of a series with itself `lag` frames later, and its largest possible value, `[strips]` each."""
    early, late = width[:-lag] - width[:-lag].mean(axis=0), width[lag:] - width[lag:].mean(axis=0)
    return (early * late).mean(axis=0), np.sqrt((early**2).mean(axis=0) * (late**2).mean(axis=0))
