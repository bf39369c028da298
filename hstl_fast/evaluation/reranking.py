"""Re-ranking with k-reciprocal encoding (Zhong, Zheng, Cao and Li, CVPR 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.progress import Progress, silent

# Bytes for each pair of sequences: the distances and the scaled ones in float32, and in float16 the encoding, the
# expanded one, and the gallery's part of it by columns.
_BYTES = 4 + 4 + 2 + 2 + 2
MEMORY_LIMIT = 4 * 2**30


def check_rerank_memory(count: int) -> None:
    """Check that so many sequences can be re-ranked.

    Args:
        count: The number of probes and gallery sequences together.

    Raises:
        ValueError: Re-ranking would need more memory than `MEMORY_LIMIT`.
    """
    needed = _BYTES * count**2
    if needed > MEMORY_LIMIT:
        raise ValueError(
            f"re-ranking compares all {count} sequences with each other and would need {needed / 2**30:.1f} GiB; "
            f"at most {MEMORY_LIMIT / 2**30:.0f} GiB are allowed, {int((MEMORY_LIMIT / _BYTES) ** 0.5)} sequences"
        )


def rerank(
    distances: NDArray[np.float32],
    probes: int,
    k1: int = 6,
    k2: int = 6,
    weight: float = 0.3,
    dtype: Any = np.float16,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Compute re-ranked distances of probes to a gallery.

    The distance is `1 - weight` times the Jaccard distance of the two sequences' k-reciprocal neighbours plus `weight`
    times the original distance, divided by the largest of its row. The neighbours are expanded by those of half as many
    (2/3 of them have to be shared), weighted by `exp(-distance)`, and averaged over the nearest `k2`.

    Args:
        distances: Distances `[n + k, n + k]` of all sequences to each other, the probes first.
        probes: The number of probes `n`.
        k1: The number of nearest neighbours, without the sequence itself.
        k2: The number of nearest neighbours, with the sequence itself, whose encodings are averaged.
        weight: The weight of the original distance, 0 to 1.
        dtype: The type in which neighbours are encoded and compared. float16 is what the field's evaluator uses and
            published numbers are made with; float64 gives the formulas' values, which differ by up to 1e-3.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        Distances `[n, k]`, float32, or float64 where `dtype` is.

    Raises:
        ValueError: `distances` is not square, or another argument is out of its range.
    """
    _check(distances, probes, k1, k2, weight)
    tell = progress or silent
    exact: Any = np.float64 if np.dtype(dtype).itemsize > 4 else np.float32
    scaled: NDArray[Any] = distances.astype(exact)
    np.divide(scaled, np.maximum(scaled.max(axis=1, keepdims=True), np.finfo(exact).tiny), out=scaled)
    nearest = _nearest(scaled, max(k1 + 1, k2))
    encoded = _encode(scaled, nearest, k1, dtype)
    expanded = np.empty_like(encoded)
    for i, some in enumerate(nearest[:, :k2]):
        expanded[i] = encoded[some].mean(axis=0)
    del encoded
    result: NDArray[Any] = np.empty((probes, len(distances) - probes), exact)
    known = np.ascontiguousarray(expanded[probes:].T)
    members = [np.flatnonzero(column) for column in known]
    for i in range(probes):
        jaccard = _jaccard(expanded[i], known, members)
        result[i] = jaccard * (1 - weight) + scaled[i, probes:] * weight
        if i % 64 == 63 or i == probes - 1:
            tell("re-ranking", i + 1, probes)
    return result


def _check(distances: NDArray[np.float32], probes: int, k1: int, k2: int, weight: float) -> None:
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be [n + k, n + k], of all sequences; got {list(distances.shape)}")
    if not 0 < probes < len(distances):
        raise ValueError(f"probes must be 1 to {len(distances) - 1}, the gallery is not empty; got {probes}")
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise ValueError(f"k1 and k2 must be at least 1 and weight 0 to 1; got {k1}, {k2} and {weight}")


def _nearest(distances: NDArray[Any], count: int) -> NDArray[np.intp]:
    """The nearest sequences of each, `[n + k, count]`, itself among them, in their order where distances are equal."""
    found = np.empty((len(distances), min(count, len(distances))), np.intp)
    for i, row in enumerate(distances):
        found[i] = row.argsort(kind="stable")[:count]
    return found


def _encode(distances: NDArray[Any], nearest: NDArray[np.intp], k1: int, dtype: Any) -> NDArray[Any]:
    """The weights of each sequence's expanded k-reciprocal neighbours; the weights of a row sum to 1."""
    wide, narrow = _reciprocal(nearest[:, : k1 + 1]), _reciprocal(nearest[:, : round(k1 / 2) + 1])
    encoded = np.zeros(distances.shape, dtype)
    for i, neighbours in enumerate(wide):
        expanded = set(neighbours)
        for candidate in neighbours:
            if 3 * len(narrow[candidate] & neighbours) > 2 * len(narrow[candidate]):
                expanded |= narrow[candidate]
        chosen = sorted(expanded)
        weights = np.exp(-distances[i, chosen])
        encoded[i, chosen] = weights / weights.sum()
    return encoded


def _reciprocal(nearest: NDArray[np.intp]) -> list[set[int]]:
    """The neighbours of each sequence that have it among their own, itself among them."""
    mutual = (nearest[nearest] == np.arange(len(nearest))[:, None, None]).any(axis=2)
    return [set(row[kept].tolist()) for row, kept in zip(nearest, mutual, strict=True)]


def _jaccard(encoding: NDArray[Any], known: NDArray[Any], members: list[NDArray[np.intp]]) -> NDArray[Any]:
    """The Jaccard distances `[k]` of one encoding to those of the gallery, `known` `[n + k, k]` by its columns."""
    shared = np.zeros(known.shape[1], known.dtype)
    for j in np.flatnonzero(encoding):
        shared[members[j]] += np.minimum(encoding[j], known[j, members[j]])
    return np.asarray(1 - shared / (2 - shared))
