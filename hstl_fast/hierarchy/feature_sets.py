"""Features of strips of the body, measured on one sequence of silhouettes at a time.

docs/hierarchy.md has the formulae. A strip is `rows / strips` neighbouring rows; the first is the head. A clip is
`[T, 64, 44]` uint8, 0 background to 255 body. What a sequence cannot tell, such as the rhythm of a strip in which
nothing moves, is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Clip = NDArray[np.uint8]

# The columns of the average silhouette are joined to so many bins, 4 columns each.
SHAPE_BINS = 11
# Shorter sequences say nothing about motion. At 25 frames a second a step takes 12 to 16 frames.
FEWEST_FRAMES_FOR_MOTION = 8
# So many frames of a clip are floating-point numbers at a time.
FRAMES_OF_A_BLOCK = 256
# Lags at which a step is looked for, in frames; at 60 frames a second a step takes 30 to 40.
_SHORTEST_LAG, _LONGEST_LAG = 4, 64
# From here on a pixel is part of the body where its outline is measured.
_INSIDE = 0.5
# Spreads below this are rounding.
_NOTHING = 1e-9


class Series(NamedTuple):
    """How strips change over time.

    Attributes:
        mass: Share of the strip that is body, `[T, strips]`.
        width: Mean over the rows of the distance from the first to the last body pixel, as a share of the columns; 0
            in rows without any; `[T, strips]`.
        centre: Column of the centre of mass as a share of the columns, 0 in the middle; where a strip is empty, its
            mean over the other frames; `[T, strips]`.
        change: Mean absolute difference of each frame and the one before, `[T - 1, strips]`.
    """

    mass: Floats
    width: Floats
    centre: Floats
    change: Floats


def series_of(clip: Clip, strips: int) -> Series:
    """Measure the strips of every frame.

    Args:
        clip: Silhouettes `[T, rows, columns]` uint8.
        strips: Number of strips, a divisor of the rows.

    Returns:
        The series.
    """
    blocks = [_of_block(clip, start, strips) for start in range(0, len(clip), FRAMES_OF_A_BLOCK)]
    mass, width, moment, change = (np.concatenate(values) for values in zip(*blocks, strict=True))
    filled = mass > 0
    centre = np.divide(moment, mass, out=np.zeros_like(mass), where=filled)
    usual = centre.sum(axis=0) / np.maximum(filled.sum(axis=0), 1)
    return Series(mass, width, np.where(filled, centre, usual[None]), change)


def _of_block(clip: Clip, start: int, strips: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Mass, width and first moment of the frames of a block, and their changes since the frames before them."""
    before = min(start, 1)
    x = clip[start - before : start + FRAMES_OF_A_BLOCK] / 255
    _, rows, columns = x.shape
    parts = x.reshape(len(x), strips, rows // strips, columns)
    change = np.abs(np.diff(parts, axis=0)).mean(axis=(2, 3))
    parts = parts[before:]
    inside = parts >= _INSIDE
    first, last = inside.argmax(axis=-1), columns - 1 - inside[..., ::-1].argmax(axis=-1)
    width = np.where(inside.any(axis=-1), last - first + 1, 0).mean(axis=-1) / columns
    by_column = parts.mean(axis=2) / columns
    places = (np.arange(columns) - (columns - 1) / 2) / columns
    return by_column.sum(axis=-1), width, by_column @ places, change


def shape(clip: Clip, strips: int) -> Floats:
    """Measure what a strip looks like: its row of the average silhouette.

    Args:
        clip: Silhouettes `[T, 64, 44]` uint8.
        strips: Number of strips.

    Returns:
        `[strips, 11]`: means over the frames, the rows of the strip, and four columns at a time.
    """
    average = clip.mean(axis=0) / 255
    rows, columns = average.shape
    bins = average.reshape(strips, rows // strips, SHAPE_BINS, columns // SHAPE_BINS)
    found: Floats = bins.mean(axis=(1, 3))
    return found


def motion(clip: Clip, strips: int) -> Floats:
    """Measure how much a strip moves, in which way, and how regularly.

    Args:
        clip: Silhouettes `[T, 64, 44]` uint8 of at least 8 frames.
        strips: Number of strips.

    Returns:
        `[strips, 6]`: the deviations over time of mass, width and centre; the mean change from frame to frame; the same
        divided by the mass; and the correlation of the width with itself a step later. Each is standardised over the
        strips of this sequence, so that views with much motion do not outweigh the others.
    """
    series = series_of(clip, strips)
    mass, change = series.mass.mean(axis=0), series.change.mean(axis=0)
    by_mass = np.divide(change, mass, out=np.zeros_like(change), where=mass > 0)
    spreads = [values.std(axis=0) for values in series[:3]]
    return standardised(np.stack([*spreads, change, by_mass, _rhythm(series.width)], axis=1))


def coherence(clip: Clip, strips: int) -> Floats:
    """Measure which strips move together.

    Args:
        clip: Silhouettes `[T, 64, 44]` uint8 of at least 8 frames.
        strips: Number of strips.

    Returns:
        `[strips, strips]`: the mean of the correlations over time of two strips' mass, width and centre; 1 on the
        diagonal, 0 for a strip that does not change.
    """
    found: Floats = np.mean([_correlations(values) for values in series_of(clip, strips)[:3]], axis=0)
    np.fill_diagonal(found, 1)
    return found


def standardised(features: Floats) -> Floats:
    """Give every feature a mean of 0 and a deviation of 1.

    Args:
        features: `[n, d]`.

    Returns:
        The features, each less its mean over the rows, by its deviation; 0 where it does not vary.
    """
    centred = features - features.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled: Floats = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > _NOTHING)
    return scaled


def cosines(rows: Floats) -> Floats:
    """Compare rows by the cosine of their angle.

    Args:
        rows: `[n, d]`.

    Returns:
        `[n, n]`, from -1 to 1; 0 for a row of zeros.
    """
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
    lags = range(_SHORTEST_LAG, min(len(width) // 2, _LONGEST_LAG) + 1)
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
