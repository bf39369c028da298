"""Rankings of a gallery by distance, and the rank-1 rate."""

from collections.abc import Sequence

from torch import Tensor


def identity(name: str) -> str:
    """Return the person that the name of a sequence stands for: `001` for `001/nm-01/090`, `ann` for `ann`.

    Args:
        name: Name of a sequence, with `/` between its components.

    Returns:
        All before the first slash.
    """
    return name.split("/", 1)[0]


def nearest(distances: Tensor, count: int) -> Tensor:
    """Rank the gallery for every probe.

    Args:
        distances: `[n, k]`, of every probe to every gallery sequence.
        count: How many of the nearest to return, 1 or more.

    Returns:
        Indices into the gallery, int64 `[n, min(count, k)]`: nearest first, equal distances in the gallery's order.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    return distances.argsort(dim=1, stable=True)[:, :count]


def rank_one(distances: Tensor, probe_names: Sequence[str], gallery_names: Sequence[str]) -> tuple[int, int]:
    """Count the probes that have a sequence of their own identity nearest.

    Args:
        distances: `[n, k]`, of every probe to every gallery sequence.
        probe_names: Names of the `n` probes; `identity` tells who they are.
        gallery_names: Names of the `k` gallery sequences.

    Returns:
        How many probes are right, and how many were scored: those whose identity is in the gallery.
    """
    gallery = [identity(name) for name in gallery_names]
    known = set(gallery)
    scored = hits = 0
    for probe_name, first in zip(probe_names, nearest(distances, 1)[:, 0].tolist(), strict=True):
        if identity(probe_name) in known:
            scored += 1
            hits += identity(probe_name) == gallery[first]
    return hits, scored
