"""The frame maximum of a convolution whose map is not kept, beside the maximum of its map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import hstl_fast
from hstl_fast import HSTL, reference
from hstl_fast.losses import triplet_loss
from hstl_fast.models import feature_maps
from hstl_fast.ops.arme_maximum import arme_maximum
from hstl_fast.ops.support import grown
from tests.helpers.networks import narrow_model, walkers

SPLIT, LENGTHS = [6, 5], [4, 1, 3]
each_batch = pytest.mark.parametrize("lens", [[], LENGTHS], ids=["fixed", "ragged"])

pytestmark = pytest.mark.usefixtures("native")


def leaves(lens: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """A map that is 0 in some columns, its support, and weights."""
    generator = torch.Generator().manual_seed(0)
    n, t = (1, sum(lens)) if lens else (2, 5)
    support = (torch.arange(9) < 6).expand(n, t, sum(SPLIT), 9)
    x = torch.randn(n, 8, t, sum(SPLIT), 9, generator=generator, dtype=torch.float64) * support[:, None]
    weights = torch.randn(2, 16, 8, 3, 3, 3, generator=generator, dtype=torch.float64) / 8
    return x.contiguous(memory_format=torch.channels_last_3d).requires_grad_(), support, weights.requires_grad_()


def maximum_of(lens: list[int], slope: float | None, x: Tensor, support: Tensor, weights: Tensor) -> Tensor:
    supports = grown(support, SPLIT, lens, owns_gradient=True)
    return arme_maximum(x, weights, SPLIT, slope, lens, supports, "cpu")


def expected_of(lens: list[int], slope: float | None, x: Tensor, support: Tensor, weights: Tensor) -> Tensor:
    y = reference.arme(x, weights, SPLIT, negative_slope=slope or 1.0, seq_lens=lens or None, support=support)
    sequences = y.split(lens, dim=2) if lens else [y]
    return torch.cat([sequence.amax(dim=2, keepdim=True) for sequence in sequences])


@each_batch
@pytest.mark.parametrize("slope", [0.01, None], ids=["leaky", "linear"])
def test_it_is_the_maximum_of_the_convolution(lens: list[int], slope: float | None) -> None:
    x, support, weights = leaves(lens)
    found, expected = (f(lens, slope, x, support, weights) for f in (maximum_of, expected_of))
    torch.testing.assert_close(found, expected)
    assert (found < 0).any()  # so that the slope matters
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad(y, [x, weights], direction) for y in (found, expected)), strict=True):
        inside = support[:, None] if one.shape == x.shape else torch.ones(())
        torch.testing.assert_close(one, other * inside)


def test_a_retained_graph_gives_the_same_again_and_first_derivatives_only() -> None:
    x, support, weights = leaves([])
    total = maximum_of([], 0.01, x, support, weights).square().sum()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(total, [x, weights], create_graph=True)
    first = torch.autograd.grad(total, [x, weights], retain_graph=True)
    for one, two in zip(first, torch.autograd.grad(total, [x, weights]), strict=True):
        assert torch.equal(one, two)


def test_the_map_is_not_kept() -> None:
    x, support, weights = leaves([])
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: (kept.append(saved), saved)[1], lambda saved: saved):
        maximum_of([], 0.01, x, support, weights)
    n, _, t, h, w = x.shape
    assert kept
    assert (n, 16, t, h, w) not in [tuple(tensor.shape) for tensor in kept]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for every convolution of which a network keeps the maximum only."""
    count: list[int] = []
    compute: Callable[..., Tensor] = feature_maps.arme_maximum
    monkeypatch.setattr(feature_maps, "arme_maximum", lambda *arguments: (count.append(1), compute(*arguments))[1])
    return count


def step(model: HSTL) -> tuple[Tensor, ...]:
    clips = torch.stack([walkers(8, seed) for seed in range(4)])
    loss = triplet_loss(model(clips).embeddings, torch.tensor([0, 0, 1, 1]))
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)


def test_a_training_keeps_the_maximum_of_the_last_map_only(fused: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16)
    found = step(model)
    assert fused == [1]
    monkeypatch.setattr(feature_maps.EagerMaps, "_may_defer", lambda *_: False)
    for one, other in zip(found, step(model), strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    assert fused == [1]


def test_an_evaluation_and_frozen_weights_do_not_defer(fused: list[int]) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16)
    with torch.no_grad():
        model(torch.stack([walkers(8)]))
    for layer in [*model.stem, *(layer for stage in model.stages for layer in stage.children()), model.fta]:
        layer.requires_grad_(False)
    step(model)
    assert not fused


def test_a_training_takes_the_algorithm_asked_for(fused: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow_model("casia-b", divisor=4)
    found = []
    for algorithm in ("direct", "winograd"):
        with hstl_fast.use_algorithm(algorithm):
            found.append(step(model))
    assert fused == [1, 1]
    monkeypatch.setattr(feature_maps.EagerMaps, "_may_defer", lambda *_: False)
    last = [name for name, p in model.named_parameters() if p.requires_grad].index("stages.1.1.weight")
    for algorithm, gradients in zip(("direct", "winograd"), found, strict=True):
        with hstl_fast.use_algorithm(algorithm):
            assert torch.equal(gradients[last], step(model)[last]), algorithm
    assert not torch.equal(found[0][last], found[1][last])


def test_a_training_refuses_weights_of_another_type_and_missing_rows(fused: list[int]) -> None:
    model = narrow_model("casia-b", divisor=16)
    last: Any = list(model.stages[-1].children())[-1].double()
    with pytest.raises(TypeError, match=r"weights must be torch\.float32 beside x of torch\.float32"):
        step(model)
    last.float()
    first, *others = last.split
    last.split = [first - 1, *others]
    with pytest.raises(ValueError, match=f"split .* {sum(last.split) + 1}"):
        step(model)
    last.split = [first, *others]
    step(model)
    assert fused == [1, 1, 1]
