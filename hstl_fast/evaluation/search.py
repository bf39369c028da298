"""Searches of a gallery that hold for data sets of any size: memory is bounded, and rankings are those of float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hstl_fast.evaluation.distances import part_distances
from hstl_fast.progress import Progress, silent

# Probes that are compared with the gallery at a time.
_PROBES_AT_ONCE = 64


def nearest_of_groups(
    probe: NDArray[np.float32],
    gallery: NDArray[np.float32],
    groups: NDArray[np.intp],
    metric: str = "euclidean",
    progress: Progress | None = None,
) -> NDArray[np.intp]:
    """Find the nearest gallery sequence of every group, such as of every camera, for every probe.

    Args:
        probe: Embeddings `[n, P, C]`.
        gallery: Embeddings `[k, P, C]`.
        groups: The group of each gallery sequence, int `[k]`, 0 to G - 1; sequences of group -1 are never found.
        metric: `euclidean` or `cosine`, as in `part_distances`.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        Indices into the gallery `[n, G]`, -1 for a group without sequences; equal distances in the gallery's order.

    Raises:
        ValueError: The metric is unknown, or the shapes do not fit together.
    """
    members = [np.flatnonzero(groups == g) for g in range(int(groups.max(initial=-1)) + 1)]
    found = np.full((len(probe), len(members)), -1, np.intp)
    for start, block in _blocks(probe, gallery, metric, progress):
        for g, of_group in enumerate(members):
            if len(of_group):
                found[start : start + len(block), g] = of_group[block[:, of_group].argmin(axis=1)]
    return found


def top(
    probe: NDArray[np.float32],
    gallery: NDArray[np.float32],
    count: int,
    metric: str = "euclidean",
    progress: Progress | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find the nearest gallery sequences of every probe.

    Args:
        probe: Embeddings `[n, P, C]`.
        gallery: Embeddings `[k, P, C]`.
        count: How many to find, 1 or more.
        metric: `euclidean` or `cosine`, as in `part_distances`.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        Indices into the gallery `[n, min(count, k)]`, nearest first, equal distances in the gallery's order; and their
        distances, of the same shape.

    Raises:
        ValueError: `count` is below 1, the metric is unknown, or the shapes do not fit together.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    indices = np.empty((len(probe), min(count, len(gallery))), np.intp)
    distances = np.empty(indices.shape)
    for start, block in _blocks(probe, gallery, metric, progress):
        order = block.argsort(axis=1, kind="stable")[:, :count]
        indices[start : start + len(block)] = order
        distances[start : start + len(block)] = np.take_along_axis(block, order, 1)
    return indices, distances


def match_positions(
    probe: NDArray[np.float32],
    gallery: NDArray[np.float32],
    matches: Callable[[int], NDArray[np.bool_]],
    excluded: Callable[[int], NDArray[np.bool_]] | None = None,
    metric: str = "euclidean",
    progress: Progress | None = None,
) -> list[NDArray[np.intp]]:
    """Find where the matches of every probe stand in its ranking of the gallery, from which CMC, AP and INP follow.

    Args:
        probe: Embeddings `[n, P, C]`.
        gallery: Embeddings `[k, P, C]`.
        matches: `matches(i)` is bool `[k]`, True at the gallery sequences that show the person of probe `i`.
        excluded: `excluded(i)` is bool `[k]`, True at the gallery sequences that the ranking of probe `i` leaves out;
            None leaves out none.
        metric: `euclidean` or `cosine`, as in `part_distances`.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        For every probe the positions of its matches, increasing, 0 for the nearest; empty without a match. Equal
        distances are ranked in the gallery's order.

    Raises:
        ValueError: The metric is unknown, or the shapes do not fit together.
    """
    positions = []
    for start, block in _blocks(probe, gallery, metric, progress):
        for i, row in enumerate(block, start):
            ranked = np.arange(len(gallery)) if excluded is None else np.flatnonzero(~excluded(i))
            order = ranked[row[ranked].argsort(kind="stable")]
            positions.append(np.flatnonzero(matches(i)[order]))
    return positions


def _blocks(
    probe: NDArray[np.float32], gallery: NDArray[np.float32], metric: str, progress: Progress | None
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The distances of some probes to the whole gallery at a time, `[b, k]`, with the number of the first probe."""
    tell = progress or silent
    known = torch.from_numpy(gallery).double()
    for start in range(0, len(probe), _PROBES_AT_ONCE):
        some = torch.from_numpy(probe[start : start + _PROBES_AT_ONCE]).double()
        yield start, part_distances(some, known, metric).numpy()
        tell("comparing", min(start + _PROBES_AT_ONCE, len(probe)), len(probe))
