"""Distances between sequences, each given by one embedding per part."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

METRICS = ("euclidean", "cosine")


def part_distances(probe: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """Distance of every probe to every gallery sequence: the mean over parts of the distance of their embeddings.

    probe [n, P, C], gallery [k, P, C], floating -> [n, k] in the same dtype (OpenGait evaluation protocol). `euclidean`
    is |a - b|, `cosine` is 1 - cos(a, b); a zero vector has cosine 0 with everything. Equal embeddings have a Euclidean
    distance of exactly 0. Equivalent to

        torch.stack([torch.cdist(probe[:, p], gallery[:, p]) for p in range(P)]).mean(0)

    Raises ValueError for another metric or for shapes that do not fit together.
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
    """a [n, C], b [k, C] -> [n, k]."""
    if metric == "cosine":
        return 1 - normalize(a, dim=1) @ normalize(b, dim=1).T
    # The product form |a|^2 + |b|^2 - 2ab is faster and loses half the digits of a small distance.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
