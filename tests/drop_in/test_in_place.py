"""Operations after an accelerated layer may change its output in place, as they may without acceleration."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hstl_fast import accelerate
from tests.helpers.drop_in import LAYERS, layer, layer_results, randomised, worst
from tests.helpers.opengait import BareConv3d, PowerPool, RegionConv, RegionPool

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other

# A stage whose LeakyReLU works in place keeps its output for backward in plain torch, too.
BUILT: dict[str, Callable[[], nn.Module]] = {
    **{name: build for name, (build, _) in LAYERS.items() if name != "plain stage"},
    "plain stage": lambda: nn.Sequential(BareConv3d(6, 5), nn.LeakyReLU(0.01)),
    "plain stage of two": lambda: nn.Sequential(
        BareConv3d(6, 4), nn.LeakyReLU(inplace=True), BareConv3d(4, 5), nn.LeakyReLU(0.2)
    ),
    "plain stage of slope 0": lambda: nn.Sequential(BareConv3d(6, 5), nn.LeakyReLU(0.0)),
    "ASTP of one region": lambda: RegionPool(6, 9, [7]),
    "ASTP of one channel": lambda: RegionPool(6, 1, [4, 1, 2]),
    "strip pool of one strip": lambda: PowerPool([1]),
}
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda y: y.add_(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y)),
    "product": lambda y: y.mul_(-2),
    "ReLU": nn.ReLU(inplace=True),
    "LeakyReLU": nn.LeakyReLU(0.3, inplace=True),
    "part": lambda y: y[:1].mul_(3),
    "zeros": lambda y: y.masked_fill_(torch.arange(y.numel()).view(y.shape) % 3 == 0, 0),
}
each_layer = pytest.mark.parametrize("name", BUILT)


class Followed(nn.Module):
    """A layer and what changes its output in place."""

    def __init__(self, followed: nn.Module, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = followed
        self.operation = operation

    def forward(self, *args: Any) -> Tensor:
        y = self.layer(*args)
        changed = self.operation(y)
        return y if changed.shape != y.shape else changed


def built(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[Any]]:
    """A layer of this name, and what it is called with."""
    shape = {"FTA": (2, 6, 8, 7, 6), "strip pool": (2, 6, 14, 6), "strip pool of one strip": (2, 6, 14, 6)}
    x = torch.randn(shape.get(name, (2, 6, 5, 7, 6)), generator=torch.Generator().manual_seed(3))
    return randomised(BUILT[name]()).to(dtype), [x.to(dtype), None] if name.startswith("ASTP") else [x.to(dtype)]


# The reference is plain torch, which sees every change by itself.
@each_layer
@pytest.mark.parametrize(
    ("backend", "operation"),
    [*(("cpu", operation) for operation in OPERATIONS), ("reference", "sum"), ("reference", "ReLU")],
    indirect=["backend"],
)
def test_gradients(name: str, operation: str, backend: str) -> None:
    module, args = built(name)
    model = Followed(module, OPERATIONS[operation])
    expected = layer_results(model, *args)
    assert len(accelerate(model).replaced) == 1
    assert worst(layer_results(model, *args), expected) < 1e-9


@each_layer
@pytest.mark.parametrize("operation", ["sum", "LeakyReLU"])
def test_contiguous_maps(name: str, operation: str, backend: str) -> None:
    module, args = built(name)
    model = Followed(module, OPERATIONS[operation])
    expected = layer_results(model, *args)
    assert len(accelerate(model, memory_format=torch.contiguous_format).replaced) == 1
    assert worst(layer_results(model, *args), expected) < 1e-9


@each_layer
def test_narrow_types(name: str) -> None:
    module, args = built(name, torch.bfloat16)
    assert len(accelerate(module).replaced) == 1
    expected = layer_results(Followed(module, lambda y: y * 2), *args)
    got = layer_results(Followed(module, lambda y: y.mul_(2)), *args)
    assert all(torch.equal(y, value) for y, value in zip(got, expected, strict=True))


@each_layer
def test_the_output_is_the_changed_one(name: str, backend: str) -> None:
    module, args = built(name)
    assert len(accelerate(module).replaced) == 1
    with torch.no_grad():
        expected = module(*args) * -2
    y = module(*args)
    assert OPERATIONS["product"](y) is y
    assert torch.equal(y, expected)


@pytest.mark.parametrize("lengths", [[2, 3], [5]])
@pytest.mark.parametrize("split", [[4, 1, 2], [7]])
def test_packed_pools(lengths: list[int], split: list[int], backend: str) -> None:
    model = Followed(randomised(RegionPool(6, 9, split)).double(), OPERATIONS["sum"])
    args = torch.randn(1, 6, 5, 7, 6).double(), [torch.tensor(lengths)]
    expected = layer_results(model, *args)
    assert len(accelerate(model).replaced) == 1
    assert worst(layer_results(model, *args), expected) < 1e-9


class Residual(nn.Module):
    """Regions' convolutions with a skip connection, as in a residual network, and a pool of what lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = RegionConv(6, 6, [4, 1, 2])
        self.pool = RegionPool(6, 6, [7])
        self.second = RegionConv(6, 6, [4, 1, 2])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        pooled = self.pool(y, None)
        y += x
        y = F.relu(self.second(y), inplace=True)
        return y + pooled[..., None, None]


@pytest.mark.parametrize(
    ("backend", "compiled"),
    [
        *(pytest.param(backend, False, id=f"{backend}-eager") for backend in ("reference", "cpu")),
        pytest.param("reference", True, marks=pytest.mark.slow, id="reference-compiled"),
        pytest.param("cpu", True, id="cpu-compiled"),
    ],
    indirect=["backend"],
)
def test_a_residual_block(compiled: bool, backend: str) -> None:
    model, x = randomised(Residual()).double(), torch.randn(2, 6, 6, 7, 6).double()
    expected = layer_results(model, x)
    assert len(accelerate(model).replaced) == 3
    torch.compiler.reset()
    forward = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    assert worst(layer_results(forward, x), expected) < 1e-9


class Reused(nn.Module):
    """A pool whose input is changed in place after it, as that of a pool between two layers is."""

    def __init__(self, pool: nn.Module, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.pool = pool
        self.memory_format = memory_format

    def forward(self, x: Tensor, lengths: Any) -> Tensor:
        x = (x * 2).contiguous(memory_format=self.memory_format)
        pooled = self.pool(x, lengths)
        x.add_(1)
        return torch.cat([pooled.flatten(), x.sum((0, 2, 3, 4))])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("name", ["ASTP", "ASTP without projection", "ASTP of one region"])
def test_the_input_of_a_pool_may_be_changed_after_it(
    name: str, memory_format: torch.memory_format, backend: str
) -> None:
    module, args = built(name)
    model = Reused(module, memory_format)
    expected = layer_results(model, *args)
    assert len(accelerate(model).replaced) == 1
    assert worst(layer_results(model, *args), expected) < 1e-9


def test_a_layer_that_was_trained_so_before_goes_on() -> None:
    models = [Followed(layer("ARME")[0], OPERATIONS["sum"]) for _ in range(2)]
    accelerate(models[0])
    _, (x,) = layer("ARME")
    for model in models:
        steps = torch.optim.SGD(model.parameters(), lr=1e-2)
        for _ in range(3):
            steps.zero_grad()
            model(x).square().mean().backward()
            steps.step()
    assert worst(list(models[0].parameters()), list(models[1].parameters())) < 1e-5
