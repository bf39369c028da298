"""From distances to ranked lists and rank-1."""

from collections.abc import Sequence

from torch import Tensor


def identity(name: str) -> str:
    """The person a sequence's name stands for, all before the first slash: `001/nm-01/090` -> `001`, `ann` -> `ann`."""
    return name.split("/", 1)[0]


def nearest(distances: Tensor, count: int) -> Tensor:
    """Gallery indices of the `count` nearest of each probe, nearest first, ties in gallery order.

    distances [n, k] -> int64 [n, min(count, k)]. Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    return distances.argsort(dim=1, stable=True)[:, :count]


def rank_one(distances: Tensor, probe_names: Sequence[str], gallery_names: Sequence[str]) -> tuple[int, int]:
    """(hits, scored): how many probes have their own identity nearest, of how many that have it in the gallery.

    distances [n, k]; a sequence's identity is that of its name, see `identity`.
    """
    gallery = [identity(name) for name in gallery_names]
    known = set(gallery)
    scored = hits = 0
    for probe_name, first in zip(probe_names, nearest(distances, 1)[:, 0].tolist(), strict=True):
        if identity(probe_name) in known:
            scored += 1
            hits += identity(probe_name) == gallery[first]
    return hits, scored
