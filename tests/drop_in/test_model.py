"""An accelerated model stays the model it was: parameters, state, hooks, optimisers, copies."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import accelerate
from tests.golden import recipe
from tests.helpers.drop_in import (
    WIDTH,
    each_network,
    each_preset,
    layer,
    network,
    randomised,
    results,
    silhouettes,
    worst,
)
from tests.helpers.networks import narrow_model
from tests.helpers.opengait import OpenGaitHSTL

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


class TestTheModelOfTheTests:
    @each_preset
    def test_its_names_are_the_released_ones(self, preset: str) -> None:
        with torch.device("meta"):
            state = OpenGaitHSTL(preset, classes=recipe.CLASSES).state_dict()
        assert [(key, tuple(value.shape)) for key, value in state.items()] == list(recipe.keys(preset).items())

    @each_network
    def test_it_computes_what_ours_computes(self, preset: str, older: bool) -> None:
        ours, theirs = narrow_model(preset, divisor=WIDTH).double(), network(preset, older=older).double()
        for frames in (1, 2, 6):
            sils = silhouettes(frames).double()
            expected = ours(sils[:, 0])
            for got, value in zip(theirs(sils), expected):
                torch.testing.assert_close(got, value, rtol=1e-6, atol=1e-6)


def test_state_and_parameters(model: OpenGaitHSTL) -> None:
    state, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    types = [type(m) for m in model.modules()]
    accelerate(model)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [type(m) for m in model.modules()] == types
    assert all(p.grad is None for p in parameters)


def test_a_new_state_is_loaded_into_it(model: OpenGaitHSTL, sils: Tensor) -> None:
    other = network(seed=3).double()
    accelerate(model)
    model.load_state_dict(other.state_dict())
    assert worst(results(model, sils), results(other, sils)) < 1e-9


def test_other_instances_of_the_classes_stay_as_they_are(model: OpenGaitHSTL, sils: Tensor) -> None:
    other = network(seed=1).double()
    before, forwards = results(other, sils), [type(m).forward for m in model.modules()]
    accelerate(model)
    assert [type(m).forward for m in model.modules()] == forwards
    assert not any("forward" in vars(m) for m in other.modules())
    assert all(torch.equal(a, b) for a, b in zip(results(other, sils), before))


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.SGD])
def test_an_optimiser_of_before_goes_on(optimiser: type[torch.optim.Optimizer], sils: Tensor) -> None:
    models = [network().double() for _ in range(2)]
    optimisers = [optimiser(model.parameters(), lr=1e-2, weight_decay=5e-4) for model in models]
    accelerate(models[0])
    for _ in range(2):
        for model, steps in zip(models, optimisers):
            results(model, sils)
            steps.step()
    assert worst(list(models[0].parameters()), list(models[1].parameters())) < 1e-9
    assert worst([models[0].Bn.running_var], [models[1].Bn.running_var]) < 1e-9


def test_frozen_parameters_stay_frozen(model: OpenGaitHSTL, sils: Tensor) -> None:
    model.arme1.requires_grad_(False)
    model.astp2.hpp[0].p.requires_grad_(False)
    expected = results(model, sils)
    assert not accelerate(model).left_alone
    assert worst(results(model, sils), expected) < 1e-9
    assert model.arme1[0].conv3d.weight.grad is None
    assert model.astp2.hpp[0].p.grad is None


def test_hooks_on_replaced_layers_are_called(model: OpenGaitHSTL, sils: Tensor) -> None:
    called: dict[str, list[Any]] = {"pre": [], "forward": [], "backward": []}
    model.arme2[0].register_forward_pre_hook(lambda m, inputs: called["pre"].append(m))
    accelerate(model)
    model.fta.register_forward_hook(lambda m, inputs, output: called["forward"].append((m, output.shape)))
    model.arme3[1].register_full_backward_hook(lambda m, gx, gy: called["backward"].append((m, gy[0].shape)))
    results(model, sils)
    assert called["pre"] == [model.arme2[0]]
    assert called["forward"] == [(model.fta, (2, 4, 1, 32, 22))]
    assert called["backward"] == [(model.arme3[1], (2, 8, 1, 32, 22))]


def _saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, nn.Module)
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": _saved_and_loaded,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_accelerated_and_independent(way: str, model: OpenGaitHSTL, sils: Tensor) -> None:
    found = len(accelerate(model).replaced)
    expected = results(model, sils)
    copied = COPIES[way](model)
    assert all(torch.equal(a, b) for a, b in zip(results(copied, sils), expected, strict=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert worst(results(copied, sils), expected) == 0
    report = accelerate(copied)
    assert (len(report.replaced), len(report.already_accelerated)) == (0, found)
    report.undo()
    assert not any("forward" in vars(m) for m in copied.modules())
    assert all("forward" in vars(layer.module) for layer in accelerate(model).already_accelerated)
    assert worst(results(copied, sils), expected) < 1e-9


def test_a_shallow_copy_is_accelerated_anew_and_undone() -> None:
    module, (x,) = layer("plain stage")
    accelerate(module)
    copied = copy.copy(module)
    copied._modules = {name: randomised(copy.deepcopy(child), seed=4) for name, child in module._modules.items()}
    expected = nn.Sequential.forward(copied, x)
    report = accelerate(copied)
    assert len(report.replaced) == 1
    torch.testing.assert_close(copied(x), expected)
    report.undo()
    assert torch.equal(copied(x), expected)
    assert "forward" in vars(module)
