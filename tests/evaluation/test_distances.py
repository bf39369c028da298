"""Distances and rankings against loops that spell them out."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hstl_fast import use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.evaluation import distances as module
from hstl_fast.evaluation import identity, nearest, part_distances, product_form, rank_one

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation.npz"
needs_native = pytest.mark.skipif(library.cpu() is None, reason="the native module was not built")


@pytest.fixture(autouse=True, params=[pytest.param("cpu", marks=needs_native), "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


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


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(0)
    probe, gallery = torch.randn(30, 2, 64), torch.randn(40, 2, 64)
    expected = part_distances(probe, gallery)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert part_distances(probe, gallery).equal(expected)


def test_small_distances_keep_their_digits() -> None:
    torch.manual_seed(0)
    x = 100 + torch.randn(30, 2, 64)
    assert part_distances(x, x).diagonal().abs().max() == 0
    y = x.clone()
    y[:, :, 0] += 2.0**-10
    assert part_distances(x, y).diagonal().allclose(torch.tensor(2.0**-10), rtol=1e-2)


def test_many_near_pairs_between_far_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_form, "_BLOCK", 1 << 8)
    torch.manual_seed(0)
    x = torch.randn(40, 2, 16) * 1000
    y = torch.cat([x, x + 2.0**-6])
    expected = (x.double()[:, None] - y.double()[None]).square().sum(3).sqrt().mean(2)
    distances = part_distances(x, y)
    assert ((distances - expected).abs() <= 4e-6 * expected).all()


@pytest.mark.parametrize(("metric", "key"), [("euclidean", "distance/euc"), ("cosine", "distance/cos")])
def test_equal_to_the_fields_evaluator(metric: str, key: str) -> None:
    with np.load(GOLDEN) as golden:
        probe, gallery = (torch.from_numpy(golden[f"distance/{name}"]) for name in ("probe", "gallery"))
        expected = torch.from_numpy(golden[key])
    assert (part_distances(probe, gallery, metric) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_type(metric: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    probe, gallery = torch.randn(3, 5, 7).to(dtype), torch.randn(4, 5, 7).to(dtype)
    expected = part_distances(probe.double(), gallery.double(), metric)
    distances = part_distances(probe, gallery, metric)
    assert distances.dtype == dtype
    assert (distances.double() - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.max()


def test_probes_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    probe, gallery = torch.randn(50, 2, 9), torch.randn(30, 2, 9)
    expected = part_distances(probe, gallery)
    monkeypatch.setattr(module, "_PROBES_AT_ONCE", 7)
    assert part_distances(probe, gallery).allclose(expected, rtol=0, atol=1e-6)


def test_strided_and_differentiable_inputs() -> None:
    torch.manual_seed(0)
    probe, gallery = torch.randn(2, 9, 4, requires_grad=True), torch.randn(5, 2, 9)
    distances = part_distances(probe.permute(2, 0, 1), gallery)
    assert not distances.requires_grad
    assert torch.equal(distances, part_distances(probe.detach().permute(2, 0, 1).contiguous(), gallery))


def test_empty_sides() -> None:
    some, none = torch.ones(3, 2, 4), torch.ones(0, 2, 4)
    assert part_distances(some, none).shape == (3, 0)
    assert part_distances(none, some).shape == (0, 3)


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
    with pytest.raises(ValueError, match=r"\[n, P, C\].*got \[2, 0, 4\] and \[2, 0, 4\]"):
        part_distances(x[:, :0], x[:, :0])
    with pytest.raises(ValueError, match=r"same floating type.*torch.float32 on cpu and torch.float64 on cpu"):
        part_distances(x, x.double())
    with pytest.raises(ValueError, match=r"same floating type.*got torch.int64 on cpu"):
        part_distances(x.long(), x.long())
    for value in (math.nan, math.inf):
        bad = x.clone()
        bad[1, 2, 3] = value
        with pytest.raises(ValueError, match=r"gallery must be finite; got NaN or infinity in gallery\[1\]"):
            part_distances(x, bad)
        with pytest.raises(ValueError, match=r"probe must be finite; got NaN or infinity in probe\[1\]"):
            part_distances(bad, x, "cosine")
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


@needs_native
def test_native_and_torch_agree() -> None:
    torch.manual_seed(0)
    probe, gallery = torch.randn(30, 3, 33), torch.randn(40, 3, 33)
    for metric in ("euclidean", "cosine"):
        found = []
        for backend in ("cpu", "reference"):
            with use_backend(backend):
                found.append(part_distances(probe, gallery, metric))
        assert found[0].allclose(found[1], rtol=0, atol=4e-6)


def test_without_the_native_module(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    module._say_once.cache_clear()
    monkeypatch.setattr(library, "_cpu", None)
    monkeypatch.setattr(library, "_cpu_error", "it was not built")
    x = torch.ones(2, 3, 4)
    with use_backend("auto"):
        assert part_distances(x, x).eq(0).all()
        assert part_distances(x, x).eq(0).all()
    assert [record.message for record in caplog.records] == ["distances are computed by torch: it was not built"]
    with use_backend("cpu"), pytest.raises(RuntimeError, match="it was not built"):
        part_distances(x, x)
    monkeypatch.setattr(library, "_cpu_error", "HSTL_FAST_CPU_ISA: expected another")
    with use_backend("auto"), pytest.raises(ValueError, match="HSTL_FAST_CPU_ISA: expected another"):
        part_distances(x, x)
