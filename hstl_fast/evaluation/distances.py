"""Distances between sequences, each given by one embedding per part."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

# The distances of two embeddings that `part_distances` knows.
METRICS = ("euclidean", "cosine")


def part_distances(probe: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """Compute the distance of every probe to every gallery sequence: the mean distance of their parts.

    Equivalent to

        torch.stack([torch.cdist(probe[:, p], gallery[:, p]) for p in range(P)]).mean(0)

    which is how OpenGait evaluates. Equal embeddings have a Euclidean distance of exactly 0.

    Args:
        probe: Embeddings `[n, P, C]` of a floating type.
        gallery: Embeddings `[k, P, C]` of the same type.
        metric: `euclidean`, |a - b|, or `cosine`, 1 - cos(a, b); a zero vector has cosine 0 with every vector.

    Returns:
        Distances `[n, k]` of the same type.

    Raises:
        ValueError: The metric is unknown, or the shapes do not fit together.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")
    if probe.ndim != 3 or gallery.ndim != 3 or probe.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            "probe and gallery must be [n, P, C] and [k, P, C] with the same parts and channels; "
            f"got {list(probe.shape)} and {list(gallery.shape)}"
        )
    total = probe.new_zeros(len(probe), len(gallery))
    for part in range(probe.shape[1]):
        total += _distances(probe[:, part], gallery[:, part], metric)
    return total / probe.shape[1]


def _distances(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Distances `[n, k]` of the vectors `a` `[n, C]` to the vectors `b` `[k, C]`."""
    if metric == "cosine":
        return 1 - normalize(a, dim=1) @ normalize(b, dim=1).T
    # The product form |a|^2 + |b|^2 - 2ab is faster and loses half the digits of a small distance.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
