"""A layer that is changed inside after acceleration computes by its own forward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from hstl_fast import accelerate
from tests.helpers.drop_in import layer, randomised, results, stage, worst
from tests.helpers.gaitgl import GlobalLocal
from tests.helpers.opengait import BareConv3d, OpenGaitHSTL

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


def _wrapped(module: Any) -> None:
    class Doubling(nn.Module):
        def __init__(self, conv: nn.Conv3d) -> None:
            super().__init__()
            self.conv, self.weight = conv, conv.weight

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.conv(x)

    module[0].conv3d = Doubling(module[0].conv3d)


def _doubled(module: Any) -> None:
    own = module[0].conv3d.forward
    module[0].conv3d.forward = lambda x: own(x) * 2


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "hook": ("plain stage", lambda m: m[0].register_forward_hook(lambda _, __, y: y * 2)),
    "wrapper": ("plain stage", _wrapped),
    "forward": ("plain stage", _doubled),
    "added": ("plain stage", lambda m: m.append(nn.Tanh())),
    "removed": ("plain stage", lambda m: m.__delitem__(slice(1, None))),
    "bias": ("ARME", lambda m: setattr(m.conv3d[0].conv3d, "bias", nn.Parameter(torch.ones(5)))),
    "convolution": ("ARME", lambda m: setattr(m.conv3d[0], "conv3d", BareConv3d(6, 5, bias=True).conv3d)),
    "dilation": ("ARME", lambda m: vars(m.conv3d[0].conv3d).update(dilation=(2, 2, 2), padding=(2, 2, 2))),
    "eps": ("strip pool", lambda m: setattr(m, "eps", 0.5)),
    "eps inside": ("ASTP", lambda m: setattr(m.hpp[1], "eps", 0.5)),
    "projection": ("ASTP", lambda m: setattr(m.proj, "conv", nn.Conv2d(6, 9, 1))),
    "window": ("FTA", lambda m: vars(m.mma[0].FP_5).update(kernel_size=(3, 1, 1), padding=(0, 0, 0))),
}


class Dropping(GlobalLocal):
    """A layer that drops values once a rate is set."""

    def __init__(self) -> None:
        super().__init__(6, 5, 1)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(super().forward(x))
        return y


def test_a_rate_set_later_counts() -> None:
    module, (x,) = Dropping(), layer("global-local")[1]
    assert accelerate(module).replaced
    module.dropout.p = 1.0
    assert not module(x).any()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_changes_inside_count(change: str, compiled: bool) -> None:
    name, make = CHANGES[change]
    module, args = layer(name)
    before, report = module(*args), accelerate(module)
    make(module)
    torch.compiler.reset()
    got = (torch.compile(module, backend="eager", fullgraph=True) if compiled else module)(*args)
    expected = type(module).forward(module, *args)
    assert torch.equal(got, expected)
    assert (before - expected).abs().max() > 1e-3 * expected.abs().max()
    assert accelerate(module).left_alone
    assert "forward" not in vars(module)
    report.undo()


def test_a_negative_slope_is_left_to_the_own_forward() -> None:
    module, (x,) = layer("plain stage")
    accelerate(module)
    vars(module[1])["negative_slope"] = -0.5  # type: ignore[index]
    assert torch.equal(module(x), nn.Sequential.forward(module, x))  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_decided")
def test_a_layer_whose_convolution_is_replaced_is_left_to_the_own_forward() -> None:
    module, x = randomised(stage(32, 32)), torch.rand(1, 32, 4, 9, 8)
    accelerate(module)
    module[0] = nn.Identity()  # type: ignore[operator]
    assert torch.equal(module(x), nn.Sequential.forward(module, x))  # type: ignore[arg-type]


def test_a_change_that_leaves_the_layer_what_it_was_is_accelerated_again() -> None:
    module, (x,) = layer("ARME")
    accelerate(module)
    module.conv3d[1] = randomised(BareConv3d(6, 5), seed=7)
    expected = type(module).forward(module, x)
    assert torch.equal(module(x), expected)
    assert len(accelerate(module).replaced) == 1
    torch.testing.assert_close(module(x), expected)


def test_hooks_put_inside_later_are_called(model: OpenGaitHSTL, sils: Tensor) -> None:
    expected = results(model, sils)
    accelerate(model)
    called: list[nn.Module] = []
    handle = model.arme2[0].conv3d[1].conv3d.register_forward_hook(lambda m, *_: called.append(m))
    assert worst(results(model, sils), expected) < 1e-9
    assert called == [model.arme2[0].conv3d[1].conv3d]
    handle.remove()
    results(model, sils)
    assert len(called) == 1


def test_parametrizations_put_inside_later_count() -> None:
    module, (x,) = layer("ARME")
    module, x = module.double(), x.double()
    accelerate(module)
    parametrizations.spectral_norm(module.conv3d[0].conv3d)
    module.eval()
    expected = type(module).forward(module, x)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("name", "kind"), [("plain stage", nn.LeakyReLU), ("ARME", nn.Conv3d), ("ASTP", nn.Conv2d), ("FTA", nn.MaxPool3d)]
)
def test_a_forward_replaced_in_a_class_of_torch_counts(
    name: str, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, args = layer(name)
    accelerate(module)
    before, own = module(*args), kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: 2 * own(self, x))
    expected = type(module).forward(module, *args)
    assert torch.equal(module(*args), expected)
    assert (before - expected).abs().max() > 1e-3 * expected.abs().max()
    assert len(accelerate(module).left_alone) == 1
    monkeypatch.undo()
    assert len(accelerate(module).replaced) == 1
    assert torch.equal(module(*args), before)


def test_a_forward_over_that_of_an_accelerated_pool_inside_counts() -> None:
    module, args = layer("ASTP")
    accelerate(module.hpp[0])
    assert len(accelerate(module).replaced) == 1
    before, inner = module(*args), module.hpp[0].forward
    module.hpp[0].forward = lambda x: 2 * inner(x)
    expected = type(module).forward(module, *args)
    assert torch.equal(module(*args), expected)
    assert (before - expected).abs().max() > 1e-3 * expected.abs().max()
    module.hpp[0].forward = inner
    assert torch.equal(module(*args), before)


@pytest.mark.parametrize("change", ["undone", "accelerated"])
def test_forwards_of_ours_inside_a_layer_do_not_count(change: str) -> None:
    module, args = layer("ASTP")
    report = accelerate(module.hpp[0]) if change == "undone" else None
    assert len(accelerate(module).replaced) == 1
    before = module(*args)
    report.undo() if report else accelerate(module.hpp[0])
    assert torch.equal(module(*args), before)
    assert accelerate(module).already_accelerated
