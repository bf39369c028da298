"""dgrad that also applies the derivative of the activation before it, and adds the frame maximum's gradient."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast import HSTL, HSTLConfig, backends, use_backend
from hstl_fast.backends import cuda
from hstl_fast.models.config import Stage
from hstl_fast.ops import _dispatch

CONFIG = HSTLConfig((8, 8), (Stage((40, 24), (8, 16)), Stage((8, 32, 24), (16, 8))), False, 64, 3)


@pytest.fixture
def calls(exact_kernels: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each private operator is computed by the cuda backend."""
    counts: Counter[str] = Counter()
    find = backends.implementation

    def counting(name: str, backend: str) -> Any:
        counts[name] += backend == "cuda"
        return find(name, backend)

    monkeypatch.setattr(backends, "implementation", counting)
    return counts


@pytest.fixture
def automatic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backends are chosen for each operator, this one first."""
    monkeypatch.setattr(_dispatch, "candidates", lambda *_: ("cuda", "reference"))
    with use_backend("auto"):
        yield


def silhouettes() -> Tensor:
    """Of 2 sequences of 3 frames: noise across the borders of some regions."""
    random = torch.Generator().manual_seed(0)
    x = torch.zeros(2, 3, 64, 44, dtype=torch.uint8)
    x[:, :, 36:44, 20:24] = torch.randint(0, 256, (2, 3, 8, 4), generator=random, dtype=torch.uint8)
    return x


def gradients(network: HSTL, x: Tensor) -> list[Tensor]:
    """Those of a training step."""
    network.zero_grad()
    out = network(x)
    (out.embeddings.square().sum() + out.logits.square().sum()).backward()
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def test_a_network_has_the_same_gradients(calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    fused = gradients(network, silhouettes())
    # The second layer of the stem, both of each stage; the first layer has no dgrad.
    assert calls["arme_dgrad_fused"] == 5
    assert calls["arme_dgrad"] == 0
    # The map that FTA reads, and the last one.
    assert calls["leaky_backward_"] == 2
    monkeypatch.setattr(cuda, "FUSES_INTO_DGRAD", False)
    apart = gradients(network, silhouettes())
    assert calls["arme_dgrad"] == 5
    assert len(fused) == len(apart) == len(list(network.parameters()))
    for one, other in zip(fused, apart, strict=True):
        assert one.equal(other)


def test_a_hook_sees_the_gradients_of_autograd(calls: Counter[str]) -> None:
    """A layer that is watched, or behind a node that is, hands back what it would without its neighbours."""
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    expected = gradients(network, silhouettes())
    calls.clear()
    seen = []
    network.stages[0].get_submodule("0").register_full_backward_hook(lambda *given: seen.append(given))
    found = gradients(network, silhouettes())
    assert seen
    assert calls["arme_dgrad_fused"] == 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * other.abs().max().item())


def test_two_backward_passes_of_a_retained_graph(calls: Counter[str]) -> None:
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    loss = network(silhouettes()).embeddings.square().sum()
    found = []
    for _ in range(2):
        network.zero_grad()
        loss.backward(retain_graph=True)
        found.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert calls["arme_dgrad_fused"] == 10
    for one, other in zip(*found, strict=True):
        assert one.equal(other)


def test_frozen_weights_of_one_layer(calls: Counter[str]) -> None:
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    expected = gradients(network, silhouettes())
    names = [name for name, _ in network.named_parameters()]
    frozen = next(name for name in names if name.startswith("stages.0"))
    network.get_parameter(frozen).requires_grad_(False)
    found = gradients(network, silhouettes())
    kept = [gradient for name, gradient in zip(names, expected, strict=True) if name != frozen]
    for one, other in zip(found, kept, strict=True):
        assert one.equal(other)


def reached(network: HSTL) -> list[Tensor]:
    """The parameters behind the embeddings."""
    return [parameter for name, parameter in network.named_parameters() if not name.startswith("classifier")]


def inspect(node: Any) -> None:
    """Look behind every node from here on."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if current is not None and current not in seen:
            seen.add(current)
            pending += [following for following, _ in current.next_functions]


@pytest.mark.parametrize("is_raised", [False, True])
def test_a_pass_that_does_not_come_to_the_node_behind(calls: Counter[str], is_raised: bool) -> None:
    """What it asked of that node does not hold in a later pass, which finds the derivatives apart."""
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    parameters = reached(network)
    last = network.stages[1].get_submodule("1").get_parameter("weight")
    loss = network(silhouettes()).embeddings.square().sum()
    expected = torch.autograd.grad(loss, parameters, retain_graph=True)
    calls.clear()

    def refuse(gradient: Tensor) -> None:
        raise ValueError("refused")

    if is_raised:
        handle = last.register_hook(refuse)
        with pytest.raises(ValueError, match="refused"):
            loss.backward(retain_graph=True)
        handle.remove()
    else:
        torch.autograd.grad(loss, [last], retain_graph=True)
    assert calls["arme_dgrad_fused"] == 1
    inspect(loss.grad_fn)
    found = torch.autograd.grad(loss, parameters)
    assert calls["arme_dgrad_fused"] == 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * other.abs().max().item())


def test_many_gradients_at_once(calls: Counter[str]) -> None:
    """Also where an earlier pass asked a node behind to leave its derivative out."""
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    parameters = reached(network)
    last = network.stages[1].get_submodule("1").get_parameter("weight")
    loss = network(silhouettes()).embeddings.square().sum()
    torch.autograd.grad(loss, [last], retain_graph=True)
    factors = torch.tensor([1.0, 2.0])
    found = torch.autograd.grad(loss, parameters, factors, retain_graph=True, is_grads_batched=True)
    for factor, part in zip(factors, zip(*found, strict=True), strict=True):
        each = torch.autograd.grad(loss, parameters, factor, retain_graph=True)
        for one, other in zip(part, each, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * other.abs().max().item())


def test_a_pool_of_the_reference_reads_the_map_too(
    exact_kernels: None, automatic: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences too long for a two-byte index of their maxima."""
    torch.manual_seed(0)
    network = HSTL(CONFIG).train()
    expected = gradients(network, silhouettes())
    monkeypatch.setattr(backends, "LONGEST", 2)
    for one, other in zip(gradients(network, silhouettes()), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * other.abs().max().item())
