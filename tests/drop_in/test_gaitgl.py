"""GaitGL's layers are found, compute what they did, and pass channels-last maps on."""

import copy
from statistics import median
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hstl_fast import accelerate
from tests.conftest import skip_without_binary
from tests.helpers.drop_in import (
    assert_left_alone,
    layer,
    of_gradients,
    of_outputs,
    randomised,
    results,
    silhouettes,
    worst,
)
from tests.helpers.gaitgl import SHAPES, ActivatedSum, GlobalLocal, OpenGaitGL
from tests.helpers.opengait import BareConv3d

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other

each_network = pytest.mark.parametrize("name", SHAPES)


def _network(name: str, form: type[GlobalLocal] = GlobalLocal, seed: int = 0) -> OpenGaitGL:
    return randomised(OpenGaitGL(name, 16, layer=form), seed)  # type: ignore[return-value]


@each_network
def test_every_layer_is_found(name: str) -> None:
    report = accelerate(_network(name))
    names = ["GLConvA0", "GLConvA1", "GLConvB2"]
    if name == "oumvlp":
        names = [f"{pair}.{i}" for pair in names for i in (0, 1)]
    kinds = [("conv3d", "plain stage"), *((each, "global-local") for each in names), ("HPP", "strip pool")]
    assert [(row.name, row.kind) for row in report.replaced] == kinds
    assert [(row.name, row.kind, row.reason) for row in report.left_alone] == [
        ("LTA", "temporal stage", "torch's convolution of channels-last maps is as fast")
    ]


@pytest.mark.parametrize(
    ("name", "form"), [("casia-b", GlobalLocal), ("oumvlp", GlobalLocal), ("casia-b", ActivatedSum)]
)
def test_outputs_and_gradients_in_float64(name: str, form: type[GlobalLocal]) -> None:
    model, sils = _network(name, form).double(), silhouettes(3).double()
    expected = results(model, sils)
    keys, state = list(model.state_dict()), [id(p) for p in model.parameters()]
    report = accelerate(model)
    assert worst(results(model, sils), expected) < 1e-9
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == state
    report.undo()
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize("name", ["casia-b", pytest.param("oumvlp", marks=pytest.mark.slow)])
def test_float32_errs_at_most_twice_as_much_as_before(name: str) -> None:
    skip_without_binary("cpu")
    errors = []
    for seed in range(3):
        model, sils = _network(name, seed=seed), silhouettes(3, seed=seed)
        reference = results(copy.deepcopy(model).double(), sils.double())
        before = results(model, sils)
        accelerate(model)
        after = results(model, sils)
        assert not torch.equal(before[0], after[0])
        errors.append([part(run, reference) for run in (before, after) for part in (of_outputs, of_gradients)])
    outputs, gradients, our_outputs, our_gradients = (median(values) for values in zip(*errors))
    assert our_outputs <= 2 * outputs, errors
    assert our_gradients <= 2 * gradients, errors


@pytest.mark.parametrize("gradients", [False, True], ids=["evaluation", "training"])
def test_maps_stay_channels_last_through_layers_left_alone(gradients: bool) -> None:
    model = _network("casia-b").double()
    accelerate(model)
    inputs: dict[str, Tensor] = {}
    names = ("LTA", "MaxPool0", "GLConvA1", "GLConvB2", "TP")
    for name in names:
        getattr(model, name).register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    with torch.set_grad_enabled(gradients):
        model(silhouettes(6).double())
    found = {name: x.is_contiguous(memory_format=torch.channels_last_3d) for name, x in inputs.items()}
    assert found == dict.fromkeys(names, True)


class FlatStage(nn.Sequential):
    """A stage over time whose own code flattens its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(-1).view(x.shape))


def test_maps_are_contiguous_where_a_layer_left_alone_needs_it() -> None:
    model, sils = _network("casia-b").double(), silhouettes(3).double()
    model.LTA = FlatStage(*model.LTA)
    expected = results(model, sils)
    report = accelerate(model)
    assert "FlatStage has a forward of its own" in report.left_alone[0].reason
    assert worst(results(model, sils), expected) < 1e-9
    assert model.GLConvA0(torch.rand(1, 2, 3, 8, 6).double()).is_contiguous()


class OtherSlope(GlobalLocal):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.global_conv3d(x), 0.02) + F.leaky_relu(self.strips(x), 0.02)


class OneOfTwo(GlobalLocal):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.global_conv3d(x))


class Neighbours(GlobalLocal):
    def strips(self, x: Tensor) -> Tensor:
        return self.local_conv3d(x)


class PairsOfRows(GlobalLocal):
    def strips(self, x: Tensor) -> Tensor:
        return torch.cat([self.local_conv3d(strip) for strip in x.split(2, dim=3)], dim=3)


@pytest.mark.parametrize("kind", [OtherSlope, OneOfTwo, Neighbours, PairsOfRows])
def test_layers_that_compute_something_else_are_left_alone(kind: type[GlobalLocal]) -> None:
    assert_left_alone("global-local", lambda _: randomised(kind(6, 5, 1)), "its own forward returns other values")


def test_rows_that_the_strips_do_not_divide_stay_the_layers_own() -> None:
    module, _ = layer("global-local")
    x = torch.randn(2, 6, 3, 7, 4)
    expected = module(x)
    accelerate(module)
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("name", ["global-local", "global-local, one below the other"])
def test_settings_changed_later_count(name: str) -> None:
    for setting, value in (("halving", 0), ("fm_sign", name == "global-local")):
        module: Any = layer(name)[0].double()
        x = layer(name)[1][0].double()
        accelerate(module)
        setattr(module, setting, value)
        assert torch.equal(module(x), type(module).forward(module, x))
        assert len(accelerate(module).replaced) == 1
        torch.testing.assert_close(module(x), type(module).forward(module, x))


@pytest.mark.slow
def test_compiles_whole() -> None:
    module, (x,) = layer("global-local")
    module, x = module.double(), x.double()
    expected = module(x)
    accelerate(module)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)


def test_a_stage_over_time_of_another_make_is_left_alone() -> None:
    stage = nn.Sequential(BareConv3d(3, 4, kernel_size=(3, 1, 1), stride=(2, 1, 1), padding=0), nn.LeakyReLU())
    report = accelerate(stage)
    assert [row.kind for row in report.left_alone] == ["temporal stage"]
    assert report.left_alone[0].reason == "0.conv3d has stride (2, 1, 1), expected (3, 1, 1)"
