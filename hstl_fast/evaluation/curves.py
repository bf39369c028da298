"""Measures of rankings: CMC curves, average precision and inverse negative penalty."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def first_positions(positions: Iterable[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return where the first match of every probe stands.

    Args:
        positions: The positions of the matches of every probe, increasing, as `match_positions` returns them.

    Returns:
        Positions `[n]`, 0 for the nearest and -1 for a probe without a match.
    """
    return np.array([each[0] if len(each) else -1 for each in positions], np.intp)


def cumulative_matches(first: NDArray[np.intp], ranks: int) -> NDArray[np.float64]:
    """Compute the CMC curve: the share of probes that have a match among their nearest 1, 2, ... sequences.

    Args:
        first: The position of the first match of every probe `[n]`, -1 for a probe without one.
        ranks: The length of the curve, 1 or more; it may be longer than the gallery.

    Returns:
        Percentages `[ranks]` of all `n` probes, NaN without probes.

    Raises:
        ValueError: `ranks` is below 1.
    """
    if ranks < 1:
        raise ValueError(f"ranks must be at least 1; got {ranks}")
    if not len(first):
        return np.full(ranks, np.nan)
    found = (first[:, None] >= 0) & (first[:, None] < np.arange(1, ranks + 1))
    return np.asarray(100 * found.mean(axis=0))


def average_precision(positions: NDArray[np.intp]) -> float:
    """Compute the average precision of one ranking: the mean over its matches of the precision down to each.

    Args:
        positions: The positions of the matches, increasing, 0 for the nearest.

    Returns:
        A number from 0 to 1; 0 without a match.
    """
    return float((np.arange(1, len(positions) + 1) / (positions + 1)).mean()) if len(positions) else 0.0


def inverse_negative_penalty(positions: NDArray[np.intp]) -> float:
    """Compute the inverse negative penalty of one ranking: its number of matches by the rank of the last of them.

    Args:
        positions: The positions of the matches, increasing, 0 for the nearest.

    Returns:
        A number from 0 to 1; 0 without a match.
    """
    return len(positions) / (int(positions[-1]) + 1) if len(positions) else 0.0
