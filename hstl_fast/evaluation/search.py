"""Searches of a gallery that hold for data sets of any size: memory is bounded, and rankings are those of float64.

Distances are computed in the type of the embeddings, some probes at a time. Two of them whose difference is within
twice the bound of `Comparison` may stand in the wrong order: only such near-ties are computed again in float64. Beside
embeddings and results, about 600 MiB are used at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hstl_fast.evaluation.comparison import Comparison
from hstl_fast.progress import Progress

# Distances whose near-ties are looked for at a time.
_DISTANCES_AT_ONCE = 1 << 22


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
        The order is that of float64.

    Raises:
        ValueError: The metric is unknown, the shapes do not fit together, or an embedding has NaN or infinity in it.
    """
    groups = np.asarray(groups)
    if groups.shape != (len(gallery),) or (len(groups) and groups.dtype.kind not in "iu"):
        raise ValueError(
            f"groups must be int [{len(gallery)}], one for each gallery sequence; "
            f"got {groups.dtype} {list(groups.shape)}"
        )
    order = np.argsort(groups, kind="stable")
    order = order[np.searchsorted(groups[order], 0) :]
    edges = np.searchsorted(groups[order], np.arange(int(groups.max(initial=-1)) + 2))
    found = np.full((len(probe), len(edges) - 1), -1, np.intp)
    comparison = Comparison(probe, gallery, metric, order)
    for start, block in comparison.blocks(progress):
        for group, (first, end) in enumerate(pairwise(edges.tolist())):
            if first < end:
                for row, part in _pieces(block[:, first:end]):
                    columns = _nearest(comparison, start + row, part, first)
                    found[start + row : start + row + len(part), group] = order[columns]
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
        distances, of the same shape, computed in float64.

    Raises:
        ValueError: `count` is below 1, the metric is unknown, the shapes do not fit together, or an embedding has NaN
            or infinity in it.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    count = min(count, len(gallery))
    indices = np.empty((len(probe), count), np.intp)
    distances = np.empty(indices.shape)
    comparison = Comparison(probe, gallery, metric)
    for start, block in comparison.blocks(progress):
        for row, part in _pieces(block) if count else ():
            last = part.topk(count, dim=1, largest=False, sorted=False).values.amax(1)
            rows, columns = _up_to(part, last, comparison.bounds[start + row :])
            exact = comparison.exact(rows + (start + row), columns)
            ranked = np.lexsort((exact, rows))  # stable: in the gallery's order where equal
            firsts = ranked[np.searchsorted(rows, np.arange(len(part)))[:, None] + np.arange(count)]
            into = slice(start + row, start + row + len(part))
            indices[into], distances[into] = columns[firsts], exact[firsts]
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
        distances are ranked in the gallery's order, and the order is that of float64.

    Raises:
        ValueError: The metric is unknown, the shapes do not fit together, an embedding has NaN or infinity in it, or a
            function does not return bool `[k]`.
    """
    comparison = Comparison(probe, gallery, metric)
    positions, none = [], np.zeros(len(gallery), np.bool_)
    for start, block in comparison.blocks(progress):
        for i, distances in enumerate(block.numpy(), start):
            wanted = _mask("matches", matches(i), len(gallery))
            left_out = none if excluded is None else _mask("excluded", excluded(i), len(gallery))
            ranked = ~left_out
            positions.append(_positions(comparison, i, distances, np.flatnonzero(wanted & ranked), ranked))
    return positions


def _mask(name: str, mask: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    mask = np.asarray(mask)
    if mask.shape != (k,) or mask.dtype != np.bool_:
        raise ValueError(f"{name} must return bool [{k}]; got {mask.dtype} {list(mask.shape)}")
    return mask


def _pieces(block: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Some rows of a block at a time, with the number of the first."""
    rows = max(1, _DISTANCES_AT_ONCE // block.shape[1])
    for start in range(0, len(block), rows):
        yield start, block[start : start + rows]


def _up_to(distances: Tensor, last: Tensor, bounds: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns, in order, of all distances that may be at most those of `last`, `[rows]`, in float64."""
    limits = (last.double() + 2 * torch.from_numpy(bounds[: len(distances)])).to(distances.dtype)
    rows, columns = (distances <= limits[:, None]).numpy().nonzero()
    return rows, columns


def _nearest(comparison: Comparison, start: int, distances: Tensor, first: int) -> NDArray[np.intp]:
    """The column of the nearest of some probes from `start` on, among the columns of `distances`, from `first` on."""
    rows, columns = _up_to(distances, distances.amin(1), comparison.bounds[start:])
    columns = columns + first
    begins = np.searchsorted(rows, np.arange(len(distances)))
    counts = np.diff(np.append(begins, len(rows)))
    nearest: NDArray[np.intp] = columns[begins]
    undecided = np.flatnonzero((counts > 1)[rows])
    if len(undecided):
        rows, columns = rows[undecided], columns[undecided]
        ranked = np.lexsort((comparison.exact(rows + start, columns), rows))
        several = np.flatnonzero(counts > 1)
        nearest[several] = columns[ranked[np.searchsorted(rows, several)]]
    return nearest


def _positions(
    comparison: Comparison, i: int, distances: NDArray[np.float32], wanted: NDArray[np.intp], ranked: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """The positions of the columns `wanted` among the columns that are `ranked`, for probe `i`."""
    reach = 2 * comparison.bounds[i]
    ordered = np.sort(distances[ranked])
    near = distances[wanted].astype(np.float64)
    # Those before `surely` are nearer; those from there to `perhaps` are within reach, the wanted one among them.
    surely = np.searchsorted(ordered, near - reach, side="left")
    perhaps = np.searchsorted(ordered, near + reach, side="right")
    positions = surely.astype(np.intp)
    undecided = np.flatnonzero(perhaps - surely > 1)
    exact = np.full(len(distances) if len(undecided) else 0, np.nan)
    for at in undecided:
        within = np.flatnonzero(ranked & (distances >= near[at] - reach) & (distances <= near[at] + reach))
        missing = within[np.isnan(exact[within])]
        exact[missing] = comparison.exact(np.full(len(missing), i), missing)
        column = wanted[at]
        nearer = (exact[within] < exact[column]) | ((exact[within] == exact[column]) & (within < column))
        positions[at] += np.count_nonzero(nearer)
    return np.sort(positions)
