"""Distances and rankings against loops that spell them out."""

import math

import pytest
import torch

from hstl_fast.evaluation import identity, nearest, part_distances, rank_one


def spelled_out(a: torch.Tensor, b: torch.Tensor, metric: str) -> float:
    distances = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        if metric == "euclidean":
            distances.append(math.dist(x, y))
        else:
            dot = sum(u * v for u, v in zip(x, y, strict=True))
            distances.append(1 - dot / (math.hypot(*x) * math.hypot(*y)))
    return sum(distances) / len(distances)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_are_means_over_parts(metric: str) -> None:
    torch.manual_seed(0)
    probe, gallery = torch.randn(3, 5, 7, dtype=torch.float64), torch.randn(4, 5, 7, dtype=torch.float64)
    distances = part_distances(probe, gallery, metric)
    for i in range(3):
        for j in range(4):
            assert distances[i, j].item() == pytest.approx(spelled_out(probe[i], gallery[j], metric), rel=1e-12)


def test_small_distances_keep_their_digits() -> None:
    torch.manual_seed(0)
    x = 100 + torch.randn(30, 2, 64)
    assert part_distances(x, x).diagonal().abs().max() == 0
    y = x.clone()
    y[:, :, 0] += 2.0**-10
    assert part_distances(x, y).diagonal().allclose(torch.tensor(2.0**-10), rtol=1e-2)


def test_zero_vectors_have_cosine_zero() -> None:
    zero, other = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert part_distances(zero, other, "cosine").item() == 1
    assert part_distances(zero, zero, "cosine").item() == 1


def test_bad_arguments() -> None:
    x = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match="metric must be one of euclidean, cosine; got 'l1'"):
        part_distances(x, x, "l1")
    with pytest.raises(ValueError, match=r"got \[2, 3, 4\] and \[2, 3, 5\]"):
        part_distances(x, torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="at least 1; got 0"):
        nearest(torch.zeros(2, 2), 0)


def test_nearest_breaks_ties_in_gallery_order() -> None:
    distances = torch.tensor([[2.0, 1.0, 1.0, 0.5, 1.0]])
    assert nearest(distances, 4).tolist() == [[3, 1, 2, 4]]
    assert nearest(distances, 9).tolist() == [[3, 1, 2, 4, 0]]


def test_rank_one_counts_probes_with_a_partner() -> None:
    gallery = ["ann/1", "bob/1", "bob/2"]
    probe = ["ann/9", "bob/9", "eve/9"]
    distances = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert rank_one(distances, probe, gallery) == (1, 2)
    assert rank_one(distances[2:], probe[2:], gallery) == (0, 0)
    assert [identity(name) for name in ("001/nm-01/090", "walker")] == ["001", "walker"]
