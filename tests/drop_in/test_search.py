"""`accelerate` on models as other people write them: the same answers and behaviour, and what it leaves alone."""

import copy
import io
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import hstl_fast
from hstl_fast import accelerate
from tests.conftest import skip_without_binary
from tests.golden import recipe
from tests.helpers.opengait import (
    BareConv3d,
    FrameAggregation,
    OpenGaitHSTL,
    PowerPool,
    RegionConv,
    RegionPool,
)
from tests.networks import narrow_config, narrow_model, walkers

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other

WIDTH = 16
each_preset = pytest.mark.parametrize("preset", recipe.PRESETS)
each_network = pytest.mark.parametrize(
    ("preset", "older"), [("casia-b", False), ("oumvlp", True), ("gait3d", False)], ids=recipe.PRESETS
)
each_style = pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every parameter drawn anew, powers around 6.5."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
            parameter.copy_(6.5 + 0.3 * noise if name.split(".")[-1] == "p" else noise * (2 / fan) ** 0.5)
    return model


def network(preset: str = "gait3d", seed: int = 0, older: bool = False, width: int = WIDTH) -> OpenGaitHSTL:
    """A narrow network of this style with the weights of ours."""
    model = OpenGaitHSTL(preset, width, older=older)
    model.load_state_dict(narrow_model(preset, seed, divisor=width).official_state_dict())
    return model


def silhouettes(frames: int = 4, seed: int = 0) -> Tensor:
    """Two clips [2, 1, frames, 64, 44] in 0..1."""
    return torch.stack([walkers(frames, 2 * seed), walkers(frames, 2 * seed + 1)])[:, None] / 255


def answers(model: nn.Module, sils: Tensor, forward: Callable[..., Any] | None = None) -> list[Tensor]:
    """Embeddings, logits, and the gradients of a fixed direction of both."""
    model.zero_grad()
    outputs = (model if forward is None else forward)(sils)
    generator = torch.Generator().manual_seed(5)
    loss = sum((torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y) * y).sum() for y in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()
    return [y.detach() for y in outputs] + [p.grad.clone() for p in model.parameters() if p.grad is not None]


def worst(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest distance of a tensor from its counterpart, relative to its norm."""
    pairs = zip(got, expected, strict=True)
    return max(float((a.double() - b.double()).detach().norm() / b.detach().double().norm()) for a, b in pairs)


@pytest.fixture
def model() -> OpenGaitHSTL:
    return network().double()


@pytest.fixture
def sils() -> Tensor:
    return silhouettes().double()


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


@each_preset
def test_every_layer_is_found(preset: str) -> None:
    levels = 3 if preset == "casia-b" else 4
    report = accelerate(network(preset))
    expected = [("arme1", "plain stage"), ("astp1", "ASTP")]
    for level in range(2, levels + 1):
        expected += [(f"arme{level}.0", "ARME"), (f"arme{level}.1", "ARME"), (f"astp{level}", "ASTP")]
        expected += [("fta", "FTA"), ("astp2_fta", "ASTP")] if level == 2 else []
    expected += [("HPP", "strip pool")]
    assert [(layer.name, layer.kind) for layer in report.replaced] == expected
    assert len(expected) >= 8
    assert report.layers == tuple(report.replaced)
    assert str(report).startswith(f"OpenGaitHSTL: {len(expected)} replaced\n")
    assert "arme2.0" in str(report)
    assert "packed along time leak into one another" in str(report)


@each_network
def test_answers_and_gradients_in_float64(preset: str, older: bool, backend: str) -> None:
    model, sils = network(preset, older=older).double(), silhouettes().double()
    expected = answers(model, sils)
    accelerate(model)
    assert worst(answers(model, sils), expected) < 1e-9


@each_preset
def test_float32_errs_at_most_twice_as_much_as_before(preset: str) -> None:
    skip_without_binary("cpu")
    errors = []
    for seed in range(5):
        model, sils = network(preset, seed), silhouettes(seed=seed)
        truth = answers(copy.deepcopy(model).double(), sils.double())
        before = answers(model, sils)
        accelerate(model)
        after = answers(model, sils)
        assert not torch.equal(before[0], after[0])
        errors.append([part(run, truth) for run in (before, after) for part in (_of_outputs, _of_gradients)])
    outputs, gradients, our_outputs, our_gradients = (median(values) for values in zip(*errors))
    assert our_outputs <= 2 * outputs, errors
    assert our_gradients <= 2 * gradients, errors


def _of_outputs(run: list[Tensor], truth: list[Tensor]) -> float:
    return worst(run[:2], truth[:2])


def _of_gradients(run: list[Tensor], truth: list[Tensor]) -> float:
    return worst(run[2:], truth[2:])


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain stage": (lambda: stage(3, 5), (2, 3, 5, 7, 6)),
    "ARME": (lambda: RegionConv(6, 5, [4, 1, 2]), (2, 6, 5, 7, 6)),
    "ASTP": (lambda: RegionPool(6, 9, [4, 1, 2]), (2, 6, 5, 7, 6)),
    "ASTP without projection": (lambda: RegionPool(6, 6, [4, 1, 2], flag=False), (2, 6, 5, 7, 6)),
    "FTA": (lambda: FrameAggregation(6, [4, 1, 2]), (2, 6, 8, 7, 6)),
    "strip pool": (lambda: PowerPool([7]), (2, 6, 14, 6)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def stage(c_in: int, c_out: int, slope: float = 0.01, **options: Any) -> nn.Sequential:
    """A plain stage of one convolution."""
    return nn.Sequential(BareConv3d(c_in, c_out, **options), nn.LeakyReLU(slope, inplace=True))


def layer(name: str, seed: int = 0) -> tuple[nn.Module, list[Any]]:
    """A layer of this name with drawn parameters, and an input without ties."""
    build, shape = LAYERS[name]
    size = torch.Size(shape).numel()
    x = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).view(shape) / size * 2 - 0.8
    return drawn(build(), seed), [x, None] if name.startswith("ASTP") else [x]


def layer_answers(module: nn.Module, x: Tensor, *others: Any) -> list[Tensor]:
    """The layer's answer, and the gradients of its input and of all of its parameters."""
    x = x.clone().requires_grad_()
    y = module(x, *others)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y)
    gx, *gradients = torch.autograd.grad(y, [x, *module.parameters()], direction)
    return [y.detach(), gx, torch.cat([g.flatten() for g in gradients])]


@each_layer
def test_one_layer_errs_at_most_twice_as_much_as_before(name: str, backend: str) -> None:
    errors = []
    for seed in range(5):
        module, (x, *others) = layer(name, seed)
        truth = layer_answers(copy.deepcopy(module).double(), x.double(), *others)
        before = layer_answers(module, x, *others)
        assert len(accelerate(module).replaced) == 1
        after = layer_answers(module, x, *others)
        errors.append([float((y - t).norm() / t.norm()) for run in (before, after) for y, t in zip(run, truth)])
    medians = [median(values) for values in zip(*errors)]
    for own, ours in zip(medians[:3], medians[3:], strict=True):
        assert ours <= 2 * max(own, torch.finfo(torch.float32).eps / 2), errors


@each_layer
def test_one_layer_answers_in_the_type_of_before(name: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        module, (x, *others) = layer(name)
        module, x = module.to(dtype), x.to(dtype)
        expected = module(x, *others)
        assert len(accelerate(module).replaced) == 1
        got = module(x, *others)
        assert got.dtype == expected.dtype == dtype
        tolerance = 1e-12 if dtype == torch.float64 else 0.02
        assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_a_plain_stage_keeps_its_slope(slope: float) -> None:
    module, x = stage(1, 4, slope).double(), torch.randn(2, 1, 4, 6, 5).double()
    expected = module(x)
    assert len(accelerate(module).replaced) == 1
    torch.testing.assert_close(module(x), expected)


def test_plain_stages_of_other_make() -> None:
    shared = nn.LeakyReLU(0.1)
    named = nn.Sequential(
        OrderedDict(first=BareConv3d(1, 3), activation=shared, second=BareConv3d(3, 2), again=shared)
    ).double()
    x = torch.randn(2, 1, 4, 6, 5).double()
    expected = named(x)
    assert len(accelerate(named).replaced) == 1
    torch.testing.assert_close(named(x), expected)


class TestLayout:
    """Code around the layers may call `.view`, which asks for contiguous maps."""

    @pytest.mark.parametrize("left", [False, True], ids=["all replaced", "a pool left alone"])
    def test_the_whole_model_goes_on(self, left: bool, model: OpenGaitHSTL, sils: Tensor) -> None:
        model.HPP.eps = 2e-6 if left else 1e-6
        expected = answers(model, sils)
        report = accelerate(model)
        assert [layer.name for layer in report.left_alone] == ["HPP"] * left
        assert f"layers replaced here {'contiguous' if left else 'channels-last'}" in str(report)
        assert worst(answers(model, sils), expected) < 1e-9
        assert model.arme2(torch.rand(2, 2, 3, 32, 22).double()).is_contiguous() == left

    @pytest.mark.parametrize("name", ["plain stage", "ARME", "FTA"])
    def test_of_maps(self, name: str) -> None:
        for chosen in (torch.channels_last_3d, torch.contiguous_format):
            module, (x,) = layer(name)
            accelerate(module, memory_format=chosen)
            assert module(x).is_contiguous(memory_format=chosen)
        for other in (torch.preserve_format, []):
            with pytest.raises(ValueError, match=rf"or None, got {re.escape(str(other))}"):
                accelerate(module, memory_format=other)  # type: ignore[arg-type]

    def test_a_call_left_to_the_pools_own_forward(self) -> None:
        module = PowerPool([4])
        x = torch.rand(2, 3, 8, 6).transpose(2, 3)
        expected = module(x.contiguous())
        with pytest.raises(RuntimeError, match="view"):
            module(x)
        accelerate(module)
        assert torch.equal(module(x), expected)


class TestUndo:
    def test_is_exact(self) -> None:
        model, sils = network(), silhouettes()
        before, members = answers(model, sils), [dict(vars(m)) for m in model.modules()]
        report = accelerate(model)
        assert not all(torch.equal(a, b) for a, b in zip(answers(model, sils), before))
        for _ in range(2):
            report.undo()
            assert all(torch.equal(a, b) for a, b in zip(answers(model, sils), before))
            assert [list(vars(m)) for m in model.modules()] == [list(names) for names in members]
        assert len(accelerate(model).replaced) == len(report.replaced)

    def test_a_second_report_undoes_all(self, model: OpenGaitHSTL) -> None:
        accelerate(model.arme2)
        accelerate(model).undo()
        assert not any("forward" in vars(m) for m in model.modules())

    def test_refuses_while_another_forward_lies_over_ours(self, model: OpenGaitHSTL) -> None:
        report = accelerate(model)
        ours = model.fta.forward
        model.fta.forward = lambda x: ours(x) * 2
        with pytest.raises(RuntimeError, match=r"got another one over it in fta; take that away first"):
            report.undo()
        assert "forward" in vars(model.arme1)
        model.fta.forward = ours
        report.undo()
        assert not any("forward" in vars(m) for m in model.modules())

    def test_takes_away_only_what_its_own_call_knew(self, model: OpenGaitHSTL) -> None:
        first = accelerate(model)
        first.undo()
        second = accelerate(model)
        first.undo()
        assert all("forward" in vars(layer.module) for layer in second.replaced)
        second.undo()
        assert not any("forward" in vars(m) for m in model.modules())


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
    "bias": ("ARME", lambda m: setattr(m.conv3d[0].conv3d, "bias", nn.Parameter(torch.ones(5)))),
    "convolution": ("ARME", lambda m: setattr(m.conv3d[0], "conv3d", BareConv3d(6, 5, bias=True).conv3d)),
    "dilation": ("ARME", lambda m: vars(m.conv3d[0].conv3d).update(dilation=(2, 2, 2), padding=(2, 2, 2))),
    "eps": ("strip pool", lambda m: setattr(m, "eps", 0.5)),
    "eps inside": ("ASTP", lambda m: setattr(m.hpp[1], "eps", 0.5)),
    "projection": ("ASTP", lambda m: setattr(m.proj, "conv", nn.Conv2d(6, 9, 1))),
    "window": ("FTA", lambda m: vars(m.mma[0].FP_5).update(kernel_size=(3, 1, 1), padding=(0, 0, 0))),
}


class TestTheModelStaysItself:
    def test_state_and_parameters(self, model: OpenGaitHSTL) -> None:
        state, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
        types = [type(m) for m in model.modules()]
        accelerate(model)
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        assert [type(m) for m in model.modules()] == types
        assert all(p.grad is None for p in parameters)

    def test_a_new_state_is_loaded_into_it(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        other = network(seed=3).double()
        accelerate(model)
        model.load_state_dict(other.state_dict())
        assert worst(answers(model, sils), answers(other, sils)) < 1e-9

    def test_other_instances_of_the_classes_stay_as_they_are(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        other = network(seed=1).double()
        before, forwards = answers(other, sils), [type(m).forward for m in model.modules()]
        accelerate(model)
        assert [type(m).forward for m in model.modules()] == forwards
        assert not any("forward" in vars(m) for m in other.modules())
        assert all(torch.equal(a, b) for a, b in zip(answers(other, sils), before))

    @pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.SGD])
    def test_an_optimiser_of_before_goes_on(self, optimiser: type[torch.optim.Optimizer], sils: Tensor) -> None:
        models = [network().double() for _ in range(2)]
        optimisers = [optimiser(model.parameters(), lr=1e-2, weight_decay=5e-4) for model in models]
        accelerate(models[0])
        for _ in range(2):
            for model, steps in zip(models, optimisers):
                answers(model, sils)
                steps.step()
        assert worst(list(models[0].parameters()), list(models[1].parameters())) < 1e-9
        assert worst([models[0].Bn.running_var], [models[1].Bn.running_var]) < 1e-9

    def test_frozen_parameters_stay_frozen(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        model.arme1.requires_grad_(False)
        model.astp2.hpp[0].p.requires_grad_(False)
        expected = answers(model, sils)
        assert not accelerate(model).left_alone
        assert worst(answers(model, sils), expected) < 1e-9
        assert model.arme1[0].conv3d.weight.grad is None
        assert model.astp2.hpp[0].p.grad is None

    def test_the_comparison_leaves_no_trace(self, model: OpenGaitHSTL) -> None:
        called: list[str] = []
        model.fta.register_forward_hook(lambda *_: called.append("forward hook"))
        model.fta.register_full_backward_hook(lambda *_: called.append("backward hook"))
        model.HPP.p.register_hook(lambda g: called.append("parameter's hook"))
        model.arme2.eval()
        modes, random = [m.training for m in model.modules()], torch.get_rng_state()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert not accelerate(model).left_alone
        assert called == []
        assert [m.training for m in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), random)
        assert all(p.grad is None for p in model.parameters())

    def test_the_comparison_draws_from_no_generator_of_the_caller(self) -> None:
        module, random = Dropping(6, 5, [4, 1, 2]), torch.get_rng_state()
        assert accelerate(module).left_alone
        assert torch.equal(torch.get_rng_state(), random)

    def test_the_comparison_keeps_off_what_the_layer_notes(self) -> None:
        module = drawn(Counting(6, 5, [4, 1, 2]))
        assert accelerate(module).replaced
        assert (module.calls, module.last) == (0, None)

    def test_inference_mode_is_no_obstacle(self, model: OpenGaitHSTL) -> None:
        with torch.inference_mode():
            assert not accelerate(model).left_alone
            assert not accelerate(network()).left_alone

    def test_hooks_on_replaced_layers_are_called(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        called: dict[str, list[Any]] = {"pre": [], "forward": [], "backward": []}
        model.arme2[0].register_forward_pre_hook(lambda m, inputs: called["pre"].append(m))
        accelerate(model)
        model.fta.register_forward_hook(lambda m, inputs, output: called["forward"].append((m, output.shape)))
        model.arme3[1].register_full_backward_hook(lambda m, gx, gy: called["backward"].append((m, gy[0].shape)))
        answers(model, sils)
        assert called["pre"] == [model.arme2[0]]
        assert called["forward"] == [(model.fta, (2, 4, 1, 32, 22))]
        assert called["backward"] == [(model.arme3[1], (2, 8, 1, 32, 22))]

    def test_hooks_put_inside_later_are_called(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        expected = answers(model, sils)
        accelerate(model)
        called: list[nn.Module] = []
        handle = model.arme2[0].conv3d[1].conv3d.register_forward_hook(lambda m, *_: called.append(m))
        assert worst(answers(model, sils), expected) < 1e-9
        assert called == [model.arme2[0].conv3d[1].conv3d]
        handle.remove()
        answers(model, sils)
        assert len(called) == 1

    def test_parametrizations_put_inside_later_count(self) -> None:
        module, (x,) = layer("ARME")
        module, x = module.double(), x.double()
        accelerate(module)
        parametrizations.spectral_norm(module.conv3d[0].conv3d)
        module.eval()
        expected = type(module).forward(module, x)
        torch.testing.assert_close(module(x), expected)

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
    def test_changes_inside_count(self, change: str, compiled: bool) -> None:
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

    def test_a_change_that_leaves_the_layer_what_it_was_is_accelerated_again(self) -> None:
        module, (x,) = layer("ARME")
        accelerate(module)
        module.conv3d[1] = drawn(BareConv3d(6, 5), seed=7)
        expected = type(module).forward(module, x)
        assert torch.equal(module(x), expected)
        assert len(accelerate(module).replaced) == 1
        torch.testing.assert_close(module(x), expected)

    def test_modes_and_moves(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        accelerate(model)
        assert model.eval().float()(sils.float())[0].dtype == torch.float32
        assert model.train().double()(sils)[0].dtype == torch.float64

    def test_autocast(self) -> None:
        model, sils = network(), silhouettes()
        truth = answers(copy.deepcopy(model).double(), sils.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            before = answers(model, sils)
            accelerate(model)
            after = answers(model, sils)
        assert [a.dtype for a in after] == [b.dtype for b in before]
        assert all(a.isfinite().all() for a in after)
        assert 1e-4 < _of_outputs(after, truth) <= 2 * _of_outputs(before, truth)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model.arme2(torch.rand(1, 2, 3, 32, 22)).dtype == torch.bfloat16

    @pytest.mark.parametrize("moved", [False, True], ids=["as judged", "moved from float64"])
    def test_types_under_autocast(self, moved: bool) -> None:
        for name in LAYERS:
            module, (x, *others) = layer(name)
            for dtype in (torch.float32, torch.bfloat16):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    expected = module(x.to(dtype), *others)
                    report = accelerate(module.double() if moved else module)
                    assert len(report.replaced) == 1
                    got = module.float()(x.to(dtype), *others)
                report.undo()
                assert got.dtype == expected.dtype, (name, dtype)
                assert (got - expected).abs().max() <= 0.03 * expected.abs().max()

    def test_inputs_of_another_type_than_the_parameters(self) -> None:
        for name in LAYERS:
            for dtype in (torch.float64, torch.bfloat16):
                module, (x, *others) = layer(name)
                before = _answer_or_error(module, x.to(dtype), *others)
                accelerate(module)
                assert _answer_or_error(module, x.to(dtype), *others) == before, (name, dtype)

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpointing(self, reentrant: bool, model: OpenGaitHSTL, sils: Tensor) -> None:
        expected = answers(model, sils)
        accelerate(model)
        inner = model.arme3.forward
        model.arme3.forward = lambda x: checkpoint(inner, x, use_reentrant=reentrant)
        assert worst(answers(model, sils), expected) < 1e-9

    def test_compiles_whole(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        expected = answers(model, sils)
        report = accelerate(model)
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert worst(answers(model, sils, compiled), expected) < 1e-9
        report.undo()
        assert worst(answers(model, sils), expected) < 1e-15

    def test_is_exported(self, model: OpenGaitHSTL) -> None:
        skip_without_binary("cpu")
        accelerate(model)
        x = torch.rand(1, 2, 4, 32, 22).double()
        with hstl_fast.use_backend("cpu"):
            program = torch.export.export(model.eval().arme2, (x,))
            assert "hstl_fast.arme_forward" in str(program.graph)
            assert torch.equal(program.module()(x), model.arme2(x))


def _answer_or_error(module: nn.Module, *args: Any) -> tuple[str, list[float]]:
    try:
        y = module(*args)
    except RuntimeError as fault:
        return str(fault), []
    return str(y.dtype), y.double().flatten().tolist()


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
    expected = answers(model, sils)
    copied = COPIES[way](model)
    assert all(torch.equal(a, b) for a, b in zip(answers(copied, sils), expected, strict=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert worst(answers(copied, sils), expected) == 0
    report = accelerate(copied)
    assert (len(report.replaced), len(report.already_accelerated)) == (0, found)
    report.undo()
    assert not any("forward" in vars(m) for m in copied.modules())
    assert all("forward" in vars(layer.module) for layer in accelerate(model).already_accelerated)
    assert worst(answers(copied, sils), expected) < 1e-9


def test_a_shallow_copy_is_accelerated_anew_and_undone() -> None:
    module, (x,) = layer("plain stage")
    accelerate(module)
    copied = copy.copy(module)
    copied._modules = {name: drawn(copy.deepcopy(child), seed=4) for name, child in module._modules.items()}
    expected = nn.Sequential.forward(copied, x)
    report = accelerate(copied)
    assert len(report.replaced) == 1
    torch.testing.assert_close(copied(x), expected)
    report.undo()
    assert torch.equal(copied(x), expected)
    assert "forward" in vars(module)


def test_twice_is_once(model: OpenGaitHSTL, sils: Tensor) -> None:
    first = accelerate(model)
    forwards = [m.forward for m in model.modules()]
    once = answers(model, sils)
    second = accelerate(model)
    assert (len(second.replaced), len(second.already_accelerated)) == (0, len(first.replaced))
    assert f"{len(first.replaced)} already accelerated" in str(second)
    assert [vars(m).get("forward") for m in model.modules() if "forward" in vars(m)] == [
        f for f in forwards if not hasattr(f, "__func__")
    ]
    assert all(torch.equal(a, b) for a, b in zip(answers(model, sils), once))


def test_a_part_first_then_the_whole(model: OpenGaitHSTL, sils: Tensor) -> None:
    expected = answers(model, sils)
    accelerate(model.arme3)
    report = accelerate(model)
    assert [layer.name for layer in report.already_accelerated] == ["arme3.0", "arme3.1"]
    assert len(report.replaced) == 12
    assert worst(answers(model, sils), expected) < 1e-9


def test_a_module_with_two_names_is_handled_once() -> None:
    shared = RegionConv(4, 4, [3, 3])
    both = nn.ModuleDict({"first": shared, "again": nn.Sequential(shared)}).double()
    x = torch.randn(1, 4, 3, 6, 5).double()
    expected = shared(x)
    report = accelerate(both)
    assert [layer.name for layer in report.layers] == ["first"]
    torch.testing.assert_close(both["again"](x), expected)
    report.undo()
    assert torch.equal(both["again"](x), expected)


class TestPackedSequences:
    @pytest.mark.parametrize("lengths", [[4, 3, 5], [12], [1, 11]])
    @pytest.mark.parametrize("form", ["list", "tensor"])
    @each_style
    def test_astp_stops_at_their_ends(self, lengths: list[int], form: str, older: bool, backend: str) -> None:
        module = drawn(RegionPool(6, 5, [4, 3], older=older)).double()
        x = torch.randn(1, 6, 12, 7, 5).double()
        seqL = torch.tensor([lengths]) if form == "tensor" else [torch.tensor(lengths, dtype=torch.int32)]
        expected = layer_answers(module, x, seqL)
        accelerate(module)
        assert expected[0].shape[0] == len(lengths)
        assert worst(layer_answers(module, x, seqL), expected) < 1e-9
        torch.testing.assert_close(module(seqL=seqL, x=x), expected[0])

    def test_a_whole_packed_network(self, backend: str) -> None:
        model, packed = network().double(), torch.cat(list(silhouettes(6).double()), 1)[None]
        forward = lambda sils: model(sils, seqL=torch.tensor([[5, 7]]))  # noqa: E731
        expected = answers(model, packed, forward)
        assert len(accelerate(model).replaced) == 14
        got = answers(model, packed, forward)
        assert got[0].shape[0] == 2
        assert worst(got, expected) < 1e-9

    @pytest.mark.parametrize(
        ("n", "lengths"), [(1, [4, 3]), (2, [4, 4]), (2, [3])], ids=["too few", "a batch", "a batch, too few"]
    )
    def test_lengths_that_ours_does_not_define_stay_the_models_own(self, n: int, lengths: list[int]) -> None:
        module, x = drawn(RegionPool(6, 5, [4, 3])), torch.randn(n, 6, 8, 7, 5)
        expected = module(x, [torch.tensor(lengths)])
        accelerate(module)
        assert torch.equal(module(x, [torch.tensor(lengths)]), expected)

    def test_too_many_frames_fail_as_before(self) -> None:
        module, x = RegionPool(6, 5, [4, 3]), torch.randn(1, 6, 8, 7, 5)
        with pytest.raises(RuntimeError) as own:
            module(x, [torch.tensor([4, 9])])
        accelerate(module)
        with pytest.raises(RuntimeError) as ours:
            module(x, [torch.tensor([4, 9])])
        assert str(ours.value) == str(own.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ARME", (2, 6, 5, 8, 6)),
        ("FTA", (2, 6, 2, 7, 6)),
        ("FTA", (2, 6, 8, 9, 6)),
        ("strip pool", (2, 6, 13, 6)),
        ("plain stage", (2, 3)),
    ],
)
def test_other_shapes_fail_as_before(name: str, shape: tuple[int, ...]) -> None:
    module, _ = layer(name)
    x = torch.randn(shape)
    with pytest.raises((RuntimeError, ValueError, IndexError)) as own:
        module(x)
    accelerate(module)
    with pytest.raises(type(own.value)) as ours:
        module(x)
    assert str(ours.value) == str(own.value)


def test_a_sequence_without_a_batch_axis_stays_the_models_own() -> None:
    module, x = stage(1, 4), torch.randn(1, 5, 7, 6)
    expected = module(x)
    accelerate(module)
    assert torch.equal(module(x), expected)


def test_keywords_keep_their_names() -> None:
    module, (x,) = layer("ARME")
    expected = module(x=x)
    accelerate(module)
    torch.testing.assert_close(module(x=x), expected)
    with pytest.raises(TypeError, match="y"):
        module(y=x)
    with pytest.raises(TypeError):
        module(x, x)


class TestRefused:
    @pytest.mark.parametrize("module", [None, "model.pt", {"model": nn.Linear(2, 2)}, OpenGaitHSTL])
    def test_no_module(self, module: Any) -> None:
        with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got (NoneType|str|dict|type)"):
            accelerate(module)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_scripted(self) -> None:
        scripted = torch.jit.trace(stage(1, 2), torch.randn(1, 1, 3, 4, 4))
        with pytest.raises(TypeError, match=r"got a scripted one .*; accelerate the model that was scripted"):
            accelerate(scripted)
        parts = nn.ModuleDict({"old": scripted, "new": stage(1, 2)})
        report = accelerate(parts)
        assert [layer.name for layer in report.replaced] == ["new"]
        assert "old is scripted: not looked into" in report.notes

    @pytest.mark.parametrize("in_place", [False, True])
    def test_compiled(self, in_place: bool) -> None:
        module = stage(1, 2)
        compiled = module if in_place else torch.compile(module, backend="eager")
        if in_place:
            module.compile(backend="eager")
        with pytest.raises(TypeError, match=r"got a compiled one; accelerate first, then torch\.compile"):
            accelerate(compiled)
        report = accelerate(nn.ModuleDict({"old": compiled, "new": stage(1, 2)}))
        assert [layer.name for layer in report.replaced] == ["new"]
        assert report.notes[0].startswith("old is compiled: not looked into")
        assert "forward" not in vars(module)

    def test_ours(self) -> None:
        ours = hstl_fast.HSTL(narrow_config("casia-b", 16))
        report = accelerate(ours)
        assert report.layers == ()
        assert str(report) == (
            "HSTL: no HSTL layer found, nothing changed\nnote: an hstl_fast.HSTL is made of these layers already"
        )
        assert not any("forward" in vars(m) for m in ours.modules())

    def test_nothing_to_find(self) -> None:
        other = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(3, 4))
        report = accelerate(other)
        assert report.layers == report.notes == ()
        assert str(report) == "Sequential: no HSTL layer found, nothing changed"
        report.undo()


def test_a_property_that_raises_is_noted(model: OpenGaitHSTL) -> None:
    class Faulty(nn.Module):
        @property
        def split_param(self) -> list[int]:
            raise OSError("the configuration is gone")

    model.Head1 = Faulty()
    report = accelerate(model)
    assert len(report.replaced) == 14
    assert "Head1 cannot be looked at (the configuration is gone)" in report.notes


def test_a_device_chosen_by_the_caller_counts_for_nothing(model: OpenGaitHSTL) -> None:
    with torch.device("meta"):
        assert not accelerate(model).left_alone


def edited(name: str, change: Callable[[Any], Any]) -> nn.Module:
    """A layer of this name, changed in place; or the module that the change returns."""
    module, _ = layer(name)
    changed = change(module)
    return changed if isinstance(changed, nn.Module) else module


class Normed(BareConv3d):
    def __init__(self) -> None:
        super().__init__(3, 5)
        self.norm = nn.BatchNorm3d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv3d(x))


class Standardised(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), None)


class ShiftedStage(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Steeper(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        regions = x.split(self.split_param, dim=3)
        return nn.functional.leaky_relu(torch.cat([c(r) for c, r in zip(self.conv3d, regions)], dim=3), 0.02)


class SeesNeighbours(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        regions = [conv(x).split(self.split_param, dim=3)[r] for r, conv in enumerate(self.conv3d)]
        return nn.functional.leaky_relu(torch.cat(regions, dim=3), 0.01)


class Widens(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


class Counting(RegionConv):
    calls = 0
    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, x
        return super().forward(x)


class Clamped(BareConv3d):
    def forward(self, ipts: Tensor) -> Tensor:
        return super().forward(ipts).clamp(-20, 20)


class Rescaled(BareConv3d):
    def forward(self, ipts: Tensor) -> Tensor:
        return super().forward(ipts / 255 if ipts.max() > 10 else ipts)


class Dropping(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, self.training)


class DropsInEvaluation(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if self.training else 2)


class StopsGradient(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class StopsEveryGradient(RegionConv):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class HalvesGradient(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y / 2 + y.detach() / 2


class ReturnsPair(RegionConv):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class TwoArguments(RegionConv):
    def forward(self, x: Tensor, seqL: Any) -> Tensor:
        return super().forward(x)


class Halving(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, ::2]


class MeanOfFrames(nn.Module):
    def forward(self, x: Tensor, seqL: Any = None, options: Any = None) -> Any:
        return (x.mean(2),)


class OnlyUnpacked(nn.Module):
    def forward(self, x: Tensor, seqL: Any = None, options: Any = None) -> Any:
        assert seqL is None, "no packed sequences here"
        return torch.max(x, 2)


def _set(path: str, value: Any) -> Callable[[Any], None]:
    *owners, name = path.split(".")

    def change(module: Any) -> None:
        for owner in owners:
            module = module[int(owner)] if owner.isdigit() else getattr(module, owner)
        if name.isdigit():
            module[int(name)] = value
        else:
            setattr(module, name, value)

    return change


def _conv(**options: Any) -> Callable[[Any], None]:
    return _set("conv3d.1.conv3d", BareConv3d(6, 5, **options).conv3d)


def _pool(*sizes: Any, **options: Any) -> nn.MaxPool3d:
    return nn.MaxPool3d(*sizes, **options)


def _remade(kind: type[RegionConv]) -> Callable[[Any], nn.Module]:
    return lambda module: drawn(kind(6, 5, [4, 1, 2]))


def _meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta")


LEFT_ALONE: list[tuple[str, Callable[[Any], Any], str]] = [
    ("plain stage", _set("0", BareConv3d(3, 5, bias=True)), "0.conv3d has a bias"),
    ("plain stage", _set("0", BareConv3d(3, 5, stride=(1, 2, 2))), "0.conv3d has stride (1, 2, 2), expected (1, 1, 1)"),
    ("plain stage", _set("0", Normed()), "0 holds norm beside its conv3d"),
    ("plain stage", _set("1", nn.ReLU()), "1 is a ReLU, expected nn.LeakyReLU"),
    ("plain stage", _set("1", nn.BatchNorm3d(5)), "1 is a BatchNorm3d, expected nn.LeakyReLU"),
    ("plain stage", _set("1", nn.LeakyReLU(-0.1)), "1 has the slope -0.1, expected at least 0"),
    (
        "plain stage",
        lambda m: m.append(nn.MaxPool3d((1, 2, 2))),
        "2 is a MaxPool3d, expected a module that holds one conv3d",
    ),
    ("plain stage", lambda m: [_set("0", Clamped(3, 5))(m), drawn(m)], "on large numbers in evaluation mode"),
    ("plain stage", _set("0", Rescaled(3, 5)), "in evaluation mode"),
    ("plain stage", _set("1.negative_slope", "a"), "looking at it fails ('>=' not supported"),
    ("plain stage", lambda m: m.append(BareConv3d(5, 5)), "no nn.LeakyReLU follows 2"),
    ("plain stage", lambda m: ShiftedStage(*m), "ShiftedStage has a forward of its own"),
    ("plain stage", _set("0.conv3d", Standardised(3, 5, 3)), "0.conv3d is a Standardised with a forward of its own"),
    ("plain stage", _set("0.conv3d", nn.Conv2d(3, 5, 3)), "0.conv3d is a Conv2d, expected nn.Conv3d"),
    ("plain stage", _set("0.scale", nn.Parameter(torch.ones(1))), "0.scale is no part of a layer of this kind"),
    (
        "plain stage",
        lambda m: m[0].register_forward_hook(lambda *_: None),
        "0 has hooks, which would not be called",
    ),
    (
        "plain stage",
        lambda m: m[1].register_full_backward_hook(lambda *_: None),
        "1 has hooks, which would not be called",
    ),
    ("ARME", _conv(bias=True), "conv3d.1.conv3d has a bias"),
    ("ARME", _conv(dilation=2, padding=2), "conv3d.1.conv3d has padding (2, 2, 2), expected (1, 1, 1)"),
    ("ARME", _conv(dilation=2), "conv3d.1.conv3d has dilation (2, 2, 2), expected (1, 1, 1)"),
    ("ARME", _conv(padding_mode="replicate"), "conv3d.1.conv3d has padding_mode replicate, expected zeros"),
    ("ARME", _conv(kernel_size=(1, 3, 3)), "conv3d.1.conv3d has kernel_size (1, 3, 3), expected (3, 3, 3)"),
    ("ARME", _set("conv3d.1.conv3d", BareConv3d(6, 6, groups=2).conv3d), "conv3d.1.conv3d has groups 2, expected 1"),
    ("ARME", _set("conv3d.1.conv3d", BareConv3d(6, 4).conv3d), "the regions have different channels: [(6, 4), (6, 5)]"),
    ("ARME", _set("m", 2), "m must be the number of regions, 3, got 2"),
    ("ARME", _set("split_param", [4, 3]), "split_param has 2 regions, conv3d holds 3 modules"),
    ("ARME", _set("split_param", [4, 0, 3]), "split_param must be a list of row counts, got [4, 0, 3]"),
    ("ARME", _set("split_param", 7), "split_param must be a list of row counts, got 7"),
    ("ARME", _remade(Steeper), "its own forward returns other values (by "),
    ("ARME", _remade(SeesNeighbours), "its own forward returns other values (by "),
    ("ARME", _remade(Dropping), "in training mode"),
    ("ARME", _remade(DropsInEvaluation), "in evaluation mode"),
    ("ARME", _remade(StopsGradient), "its own forward stops a gradient"),
    ("ARME", _remade(StopsEveryGradient), "its own forward stops a gradient"),
    ("ARME", _remade(HalvesGradient), "its own forward has other gradients"),
    ("ARME", _remade(Widens), "its own forward returns torch.float64, ours torch.float32, in training mode"),
    ("ARME", _set("m", torch.ones(2)), "looking at it fails (Boolean value of Tensor"),
    ("strip pool", _set("eps", torch.ones(2)), "looking at it fails (Boolean value of Tensor"),
    ("ARME", _remade(ReturnsPair), "its own forward fails on a small input (it returned a tuple)"),
    ("ARME", _remade(TwoArguments), "its forward takes (x, seqL), expected 1 argument"),
    ("ARME", _remade(Halving), "its own forward returns [2, 5, 2, 7, 3], ours [2, 5, 4, 7, 3]"),
    ("ARME", _set("forward", abs), "its forward has been replaced on the instance"),
    ("ARME", _set("conv3d.0.forward", abs), "conv3d.0 has a forward replaced on the instance"),
    ("ARME", lambda m: m.register_buffer("offset", torch.ones(1)), "offset is no part of a layer of this kind"),
    ("ARME", lambda m: [parametrizations.weight_norm(m.conv3d[2].conv3d)], "conv3d.2.conv3d is parametrized"),
    ("ARME", lambda m: [parametrizations.spectral_norm(m.conv3d[2].conv3d)], "conv3d.2.conv3d is parametrized"),
    (
        "ARME",
        lambda m: [nn.utils.spectral_norm(m.conv3d[0].conv3d)],
        "conv3d.0.conv3d has hooks, which would not be called",
    ),
    (
        "ARME",
        lambda m: [prune.l1_unstructured(m.conv3d[0].conv3d, "weight", 0.5)],
        "conv3d.0.conv3d has hooks, which would not be called",
    ),
    (
        "ARME",
        _set("conv3d.0.conv3d", nn.LazyConv3d(5, 3, padding=1, bias=False)),
        "conv3d.0.conv3d is not initialised yet",
    ),
    ("ARME", _meta, "is on the meta device, where nothing can be compared; accelerate it once it has values"),
    ("ARME", lambda m: [m.conv3d[1].double()], "its parameters differ in device or dtype"),
    ("ARME", lambda m: [p.data.zero_() for p in m.parameters()], "zeros or infinities only, which shows nothing"),
    ("ASTP", _set("hpp.1.eps", 1e-5), "hpp.1.eps must be 1e-06, got 1e-05"),
    ("ASTP", _set("hpp.1.bin_num", [2]), "hpp.1.bin_num must be [1], got [2]"),
    ("ASTP", _set("hpp.1.p", nn.Parameter(torch.ones(2))), "hpp.1.p must be a Parameter of shape [1], got [2]"),
    ("ASTP", _set("m", 4), "m must be the number of regions, 3, got 4"),
    ("ASTP", _set("proj.conv", nn.Conv2d(6, 9, 1)), "proj.conv has a bias"),
    ("ASTP", _set("proj.conv", nn.Conv2d(6, 9, 3, bias=False)), "proj.conv has kernel_size (3, 3), expected (1, 1)"),
    ("ASTP", lambda m: delattr(m, "proj"), "proj.conv is a NoneType, expected nn.Conv2d"),
    ("ASTP", _set("flag", 1), "flag must be True or False, got 1"),
    ("ASTP", _set("flag", False), "proj.conv.weight is no part of a layer of this kind"),
    ("ASTP", lambda m: delattr(m, "SP1"), "has no frame maximum SP1"),
    ("ASTP", _set("SP1", MeanOfFrames()), "its own forward returns other values (by "),
    ("ASTP", _set("SP1", OnlyUnpacked()), "its own forward fails on a small input (no packed sequences here)"),
    ("FTA", _set("mma.0.FP_3", _pool((3, 1, 1), (2, 1, 1))), "mma.0.FP_3 has stride (2, 1, 1), expected (3, 1, 1)"),
    ("FTA", _set("mma.0.FP_3", _pool(3)), "mma.0.FP_3 has kernel_size 3, expected (3, 1, 1)"),
    (
        "FTA",
        _set("mma.2.FP_5", _pool((5, 1, 1), (3, 1, 1))),
        "mma.2.FP_5 has padding 0, expected (1, 0, 0)",
    ),
    ("FTA", _set("mma.2.FP_5", nn.AvgPool3d((5, 1, 1))), "mma.2.FP_5 is a AvgPool3d, expected nn.MaxPool3d"),
    ("FTA", _set("mma.1.FP_5", _pool((5, 1, 1), (3, 1, 1), (1, 0, 0), ceil_mode=True)), "has ceil_mode True"),
    ("FTA", _set("mma.1.fcs.0", nn.Conv1d(6, 6, 3, padding=1)), "mma.1.fcs.0 has kernel_size (3,), expected (1,)"),
    ("FTA", _set("mma.1.fcs.1", nn.Conv1d(6, 6, 1, bias=False)), "mma.1.fcs.1 has no bias"),
    ("FTA", _set("mma.1.fcs.1", nn.Conv1d(6, 3, 1)), "the gates have different channels: [3, 6]"),
    ("FTA", lambda m: [m.mma[0].fcs.append(nn.Conv1d(6, 6, 1))], "mma.0.fcs must be an nn.ModuleList of two nn.Conv1d"),
    ("strip pool", _set("bin_num", [7, 1]), "bin_num must be a list of one number, got [7, 1]"),
    ("strip pool", _set("bin_num", 7), "bin_num must be a list of one number, got 7"),
    ("strip pool", _set("eps", 0.0), "eps must be 1e-06, got 0.0"),
    ("strip pool", _set("p", nn.Parameter(torch.ones(7))), "p must be a Parameter of shape [1], got [7]"),
]


def test_gradients_are_compared_where_the_caller_wants_none() -> None:
    with torch.no_grad():
        assert accelerate(StopsGradient(6, 5, [4, 1, 2])).left_alone


@pytest.mark.parametrize(("name", "change", "reason"), LEFT_ALONE, ids=[f"{n}: {r}" for n, _, r in LEFT_ALONE])
def test_left_alone(name: str, change: Callable[[Any], Any], reason: str) -> None:
    module = edited(name, change)
    before = [vars(m).copy() for m in module.modules()]
    parts = nn.ModuleDict({"odd": module, "good": stage(1, 2)})
    report = accelerate(parts)
    assert [layer.name for layer in report.replaced if not layer.name.startswith("odd.")] == ["good"]
    odd = report.left_alone[0]
    assert (odd.name, odd.kind) == ("odd", name)
    assert reason in odd.reason
    assert re.search(rf"^odd +{name} +left alone  .*{re.escape(reason)}", str(report), re.MULTILINE)
    kept = [module] if name == "ASTP" else list(module.modules())
    assert [vars(m) for m in kept] == before[: len(kept)]
    report.undo()
    assert not any("forward" in vars(m) for m in parts["good"].modules())


def test_pools_inside_an_astp_that_is_left_alone_are_replaced() -> None:
    module, (x, seqL) = layer("ASTP")
    module, x = module.double(), x.double()
    module.proj.conv = nn.Conv2d(6, 9, 1).double()
    expected = module(x, seqL)
    report = accelerate(module)
    assert [layer.name for layer in report.replaced] == ["hpp.0", "hpp.1", "hpp.2"]
    torch.testing.assert_close(module(x, seqL), expected)


def test_without_a_native_backend_the_report_says_that_nothing_is_gained(model: OpenGaitHSTL) -> None:
    with hstl_fast.use_backend("reference"):
        report = accelerate(model)
    gain = "on cpu in torch.float64 the replaced layers run on the reference backend, in plain torch, and gain nothing"
    assert gain in report.notes


def test_a_backend_that_cannot_run_leaves_the_layers_alone(model: OpenGaitHSTL) -> None:
    with hstl_fast.use_backend("triton"):
        report = accelerate(model)
    assert not report.replaced
    assert "hstl_fast cannot compute it (backend 'triton' cannot run arme" in report.left_alone[0].reason


DISTRIBUTED = """
import gc, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hstl_fast import accelerate
from tests.drop_in.test_search import network, silhouettes

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
sils = silhouettes(4, seed=rank).double()


def trained(accelerated):
    model = network().double()
    if accelerated == "before":
        assert len(accelerate(model).replaced) == 14
    wrapped = DistributedDataParallel(model)
    if accelerated == "after":
        report = accelerate(wrapped)
        assert len(report.replaced) == 14 and report.replaced[0].name == "module.arme1", report
    steps = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    for _ in range(2):
        steps.zero_grad()
        embeddings, logits = wrapped(sils)
        (embeddings.sin().sum() + logits.square().mean()).backward()
        steps.step()
    return [p.detach() for p in model.parameters()]


plain = trained("never")
alone = network().double()
assert not all(torch.equal(a, b) for a, b in zip(plain, alone.parameters()))
for when in ("before", "after"):
    for got, expected in zip(trained(when), plain, strict=True):
        assert (got - expected).norm() <= 1e-9 * expected.norm(), when
        both = [torch.empty_like(got) for _ in range(2)]
        dist.all_gather(both, got)
        assert torch.equal(*both)
gc.collect()  # wrapped models in cycles would keep gloo's threads until the interpreter ends, which may abort it
dist.destroy_process_group()
print("equal")
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Children started by a test, ended with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_train_as_before(
    tmp_path: Path, environment: dict[str, str], processes: list[subprocess.Popen[str]]
) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    for rank in range(2):
        command = [sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path / "store")]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == "equal"
