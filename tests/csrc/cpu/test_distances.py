"""Native distances of embeddings against their definition in float64."""

import pytest
import torch
from torch import Tensor

from tests.csrc.cpu.helpers import Buffers, Random, address, both_dtypes, cpu

SIZES = [(1, 1, 1, 1), (3, 5, 2, 7), (530, 21, 1, 5), (70, 130, 2, 33), (257, 40, 1, 256), (5, 113, 3, 100)]


def expected_distances(probe: Tensor, gallery: Tensor, cosine: bool) -> Tensor:
    a, b = probe.double()[:, None], gallery.double()[None]
    if cosine:
        return 1 - torch.nn.functional.cosine_similarity(a, b, dim=3, eps=1e-12).mean(2)
    return (a - b).square().sum(3).sqrt().mean(2)


def native(
    probe: Tensor, gallery: Tensor, order: Tensor, cosine: bool, threads: int = 2, centre: bool = True
) -> Tensor:
    (n, parts, c), k, memory = probe.shape, len(order), Buffers()
    last = (probe.dtype.itemsize, threads)
    out, middle = memory.output(n, k, dtype=probe.dtype), gallery.mean(0) if centre else None
    workspace = memory.workspace(cpu.part_distances_workspace(n, parts, c, *last))
    tensors = (out, probe, gallery, order, middle)
    cpu.part_distances(*map(address, tensors), workspace, n, k, parts, c, cosine, *last)
    memory.check()
    return out


@both_dtypes
@pytest.mark.parametrize("cosine", [False, True], ids=["euclidean", "cosine"])
@pytest.mark.parametrize(("n", "k", "parts", "c"), SIZES)
def test_blocks_and_pairs(n: int, k: int, parts: int, c: int, cosine: bool, dtype: torch.dtype, isa: str) -> None:
    random = Random(dtype)
    probe, gallery, order = random(n, parts, c) + 1, random(k + 4, parts, c) + 1, torch.arange(k).flip(0) + 2
    gallery[order[0]] = probe[0]
    distances = native(probe, gallery, order, cosine)
    expected = expected_distances(probe, gallery[order], cosine)
    eps = torch.finfo(dtype).eps
    scale = 1 if cosine else c**0.5
    assert (distances.double() - expected).abs().max() <= 8 * eps * scale
    if not cosine:
        assert distances[0, 0] == 0
    memory = Buffers()
    rows, others = torch.arange(n).repeat_interleave(k), order.repeat(n)
    pairs = memory.output(n * k, dtype=torch.float64)
    tensors = (pairs, probe, gallery, rows, others)
    cpu.pair_distances(*map(address, tensors), n * k, parts, c, cosine, dtype.itemsize, 2)
    memory.check()
    assert (pairs.view(n, k) - expected).abs().max() <= 8 * torch.finfo(torch.float64).eps * scale


def test_without_a_centre(isa: str) -> None:
    random = Random(torch.float32)
    probe, gallery, order = random(9, 2, 40), random(31, 2, 40), torch.arange(31)
    distances = native(probe, gallery, order, False, centre=False)
    assert (distances - expected_distances(probe, gallery, False)).abs().max() <= 1e-5


def test_threads_change_no_bit(isa: str) -> None:
    random = Random(torch.float32)
    probe, gallery, order = random(300, 3, 20), random(270, 3, 20), torch.arange(270)
    gallery[100:200] = gallery[:100] + random(100, 3, 20) / 64
    for cosine in (False, True):
        one, *others = (native(probe, gallery, order, cosine, threads) for threads in (1, 2, 3))
        assert all(torch.equal(one, other) for other in others)


def test_each_distance_stands_alone(isa: str) -> None:
    """A pair's distance is the same in every block that it is part of."""
    random = Random(torch.float32)
    probe, gallery, order = random(40, 2, 50), random(150, 2, 50), torch.arange(150)
    whole = native(probe, gallery, order, False, centre=False)
    for rows, columns in (
        (slice(7, 8), slice(0, 150)),
        (slice(0, 40), slice(33, 47)),
        (slice(11, 31), slice(149, 150)),
    ):
        some = native(probe[rows].contiguous(), gallery, order[columns].contiguous(), False, centre=False)
        assert torch.equal(some, whole[rows, columns])


def test_near_vectors_keep_their_digits(isa: str) -> None:
    random = Random(torch.float32)
    probe = random(50, 2, 64) + 1000
    gallery = probe.clone()
    gallery[:, :, 0] += 2.0**-10
    distances = native(probe, gallery, torch.arange(50), False)
    expected = expected_distances(probe, gallery, False)
    assert (distances.diagonal() - expected.diagonal()).abs().max() <= 1e-6 * 2.0**-10


def differences(probe: Tensor, gallery: Tensor, threads: int = 2) -> Tensor:
    (n, parts, c), k, memory = probe.shape, len(gallery), Buffers()
    out = memory.output(n, k, dtype=probe.dtype)
    cpu.difference_distances(*map(address, (out, probe, gallery)), n, k, parts, c, probe.dtype.itemsize, threads)
    memory.check()
    return out


@both_dtypes
@pytest.mark.parametrize(("n", "k", "parts", "c"), [*SIZES, (17, 66, 9, 128)])
def test_distances_from_differences(n: int, k: int, parts: int, c: int, dtype: torch.dtype, isa: str) -> None:
    random = Random(dtype)
    probe, gallery = random(n, parts, c) + 1000, random(k, parts, c) + 1000
    gallery[-1] = probe[0]
    distances, expected = differences(probe, gallery), expected_distances(probe, gallery, False)
    roundings = c / 2 + parts + 20  # half of those of a sum over channels, those of the mean, and a few more
    assert ((distances.double() - expected).abs() <= roundings * torch.finfo(dtype).eps / 2 * expected).all()
    assert distances[0, -1] == 0
    for threads in (1, 3):
        assert torch.equal(differences(probe, gallery, threads), distances)
    alone = differences(probe[n // 2 :][:1], gallery[k // 2 :].contiguous())
    assert torch.equal(alone[0], distances[n // 2, k // 2 :])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_shows(isa: str, value: float) -> None:
    random = Random(torch.float32)
    probe, gallery = random(3, 5, 37), random(30, 5, 37)
    gallery[7, 4, 36] = value
    expected = torch.ones(3, 30, dtype=torch.bool)
    expected[:, 7] = False
    out = torch.empty(3, 30)
    cpu.difference_distances(*map(address, (out, probe, gallery)), 3, 30, 5, 37, 4, 2)
    assert torch.equal(out.isfinite(), expected)
