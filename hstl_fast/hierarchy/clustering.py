"""Agglomerative clustering of strips in a column, where only neighbours may merge. Needs the extra `[hierarchy]`.

Ward's linkage is scikit-learn's, with a chain as its connectivity. Its other linkages know only the distances along the
connectivity, which on a chain are those of the two strips at a border: average, complete and single linkage all become
the same. They are computed here from the distances of all pairs of strips.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LINKAGES = ("ward", "average", "complete", "single")
METRICS = ("euclidean", "cosine", "correlation")
# Features are rounded to multiples of the largest by this, so that trees do not hang on the rounding of a machine.
_GRID = 2.0**-32
# Distances that agree to within this are ties; the largest feature is 1.
_TIE = 1e-9
_COMBINE: dict[str, Callable[[NDArray[np.float64]], Any]] = {"average": np.mean, "complete": np.max, "single": np.min}


class Merge(NamedTuple):
    """Two neighbouring clusters that become one.

    Attributes:
        start: First strip of the upper cluster.
        border: First strip of the lower cluster.
        stop: The strip after the last one.
        distance: Distance of the two by the linkage.
        height: Largest distance among this merge and those before it; it never falls. Where merging is constrained, a
            cluster may be nearer to its neighbour than its halves were to each other.
    """

    start: int
    border: int
    stop: int
    distance: float
    height: float


def merge_neighbours(features: NDArray[np.float64], linkage: str, metric: str) -> tuple[Merge, ...]:
    """Merge neighbours, the nearest first, until one cluster is left.

    Args:
        features: Finite numbers `[strips, d]`, at least two strips.
        linkage: One of `LINKAGES`.
        metric: One of `METRICS`.

    Returns:
        The `strips - 1` merges in their order.
    """
    largest = np.abs(features).max(initial=0) or 1.0
    scaled = (features / largest / _GRID).round() * _GRID
    found = _by_ward(scaled) if linkage == "ward" else _by_pairs(_distances(scaled, metric), linkage)
    unit = largest if metric == "euclidean" else 1.0
    merges: list[Merge] = []
    for start, border, stop, distance in found:
        distance = float(distance * unit)
        merges.append(Merge(start, border, stop, distance, max(distance, merges[-1].height if merges else 0.0)))
    return tuple(merges)


def _by_ward(features: NDArray[np.float64]) -> list[tuple[int, int, int, float]]:
    strips = len(features)
    model = (
        scikit_learn()
        .AgglomerativeClustering(
            n_clusters=1, linkage="ward", connectivity=_chain(strips), compute_full_tree=True, compute_distances=True
        )
        .fit(features)
    )
    spans = [(strip, strip + 1) for strip in range(strips)]
    found = []
    for (a, b), distance in zip(model.children_, model.distances_, strict=True):
        (start, border), (_, stop) = sorted((spans[a], spans[b]))
        spans.append((start, stop))
        found.append((start, border, stop, float(distance)))
    return found


def _chain(strips: int) -> NDArray[np.int64]:
    return np.eye(strips, k=1, dtype=np.int64) + np.eye(strips, k=-1, dtype=np.int64)


def _by_pairs(distances: NDArray[np.float64], linkage: str) -> list[tuple[int, int, int, float]]:
    combine = _COMBINE[linkage]
    borders = list(range(len(distances) + 1))
    found = []
    while len(borders) > 2:
        triples = list(zip(borders, borders[1:], borders[2:]))
        between = [combine(distances[start:border, border:stop]) for start, border, stop in triples]
        # The first of those that are equally near.
        nearest = int(np.argmax(np.array(between) <= min(between) + _TIE))
        found.append((*triples[nearest], float(between[nearest])))
        borders.remove(triples[nearest][1])
    return found


def _distances(features: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Distances `[strips, strips]`."""
    if metric == "euclidean":
        apart: NDArray[np.float64] = np.linalg.norm(features[:, None] - features[None], axis=-1)
        return apart
    rows = features - features.mean(axis=1, keepdims=True) if metric == "correlation" else features
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    # A strip without direction, such as an empty one, is at a right angle to all others and equal to its like.
    directions = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    distances: NDArray[np.float64] = 1 - directions @ directions.T
    empty = norms[:, 0] == 0
    distances[np.outer(empty, empty)] = 0
    return distances.clip(0, 2)


def splits_of(strips: int, merges: tuple[Merge, ...], clusters: int) -> list[int]:
    """Cut a tree into clusters.

    Args:
        strips: Number of strips.
        merges: The merges of all strips.
        clusters: Number of clusters, from 1 to `strips`.

    Returns:
        The number of strips in each cluster, from head to feet.
    """
    borders = set(range(strips + 1)) - {merge.border for merge in merges[: strips - clusters]}
    return [below - above for above, below in pairwise(sorted(borders))]


def scikit_learn() -> Any:
    """Import `sklearn.cluster`.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("sklearn.cluster")
    except ImportError as error:
        raise ImportError(
            f"Ward's linkage needs scikit-learn, which could not be imported ({error}); "
            "install it with: pip install 'hstl_fast[hierarchy]'"
        ) from error
