"""One ranking of the gallery for each probe, by distance or re-ranked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hstl_fast.evaluation.curves import cumulative_matches
from hstl_fast.evaluation.distances import part_distances
from hstl_fast.evaluation.protocols.outcome import Request, number
from hstl_fast.evaluation.protocols.samples import Samples
from hstl_fast.evaluation.reranking import rerank
from hstl_fast.evaluation.search import match_positions, top

# The CMC curves in pictures end here, as those of the competitions do.
CURVE_RANKS = 20
_ROWS_AT_ONCE = 256


def positions_of_matches(
    samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], request: Request
) -> list[NDArray[np.intp]]:
    """Find where the sequences of each probe's person stand in its ranking of the whole gallery."""
    known = samples.labels[gallery]
    if not request.rerank:
        return match_positions(
            samples.vectors[probe],
            samples.vectors[gallery],
            lambda i: known == samples.labels[probe[i]],
            metric=request.metric,
            progress=request.progress,
        )
    order = reranked(samples, probe, gallery, request).argsort(axis=1, kind="stable")
    return [np.flatnonzero(known[row] == label) for row, label in zip(order, samples.labels[probe], strict=True)]


def nearest_sequences(
    samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], count: int, request: Request
) -> NDArray[np.intp]:
    """Find the nearest gallery sequences of each probe, as numbers of the gallery `[n, min(count, k)]`."""
    if not request.rerank:
        return top(samples.vectors[probe], samples.vectors[gallery], count, request.metric, request.progress)[0]
    return reranked(samples, probe, gallery, request).argsort(axis=1, kind="stable")[:, :count]


def reranked(
    samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], request: Request
) -> NDArray[np.float32]:
    """Compute re-ranked distances `[n, k]`."""
    everything = torch.from_numpy(samples.vectors[np.concatenate([probe, gallery])])
    distances = np.empty((len(everything), len(everything)), np.float32)
    for start in range(0, len(everything), _ROWS_AT_ONCE):
        some = everything[start : start + _ROWS_AT_ONCE]
        distances[start : start + len(some)] = part_distances(some, everything, request.metric).numpy()
        if request.progress is not None:
            request.progress("comparing", start + len(some), len(everything))
    return rerank(distances, len(probe), progress=request.progress)


def rank_rates(first: NDArray[np.intp], ranks: tuple[int, ...]) -> dict[str, float | None]:
    """Return `rank<k>` in percent of all probes, by the positions of their first matches."""
    curve = cumulative_matches(first, max(ranks))
    return {f"rank{k}": number(curve[k - 1]) for k in ranks}


def small_gallery(gallery: NDArray[np.intp], ranks: tuple[int, ...]) -> tuple[str, ...]:
    """Return a remark if the gallery is smaller than a rank that is stated."""
    beyond = [f"rank-{k}" for k in ranks if k > len(gallery)]
    if not beyond:
        return ()
    return (f"The gallery has only {len(gallery)} sequences: {' and '.join(beyond)} find whoever is in it.",)
