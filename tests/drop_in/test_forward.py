"""An accelerated model computes what it computed before, and is changed, compiled and exported as before."""

import copy
import inspect
import re
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import hstl_fast
from hstl_fast import accelerate
from hstl_fast.drop_in.forward import FastForward
from tests.conftest import skip_without_binary
from tests.helpers.drop_in import (
    LAYERS,
    each_network,
    each_preset,
    layer,
    network,
    of_gradients,
    of_outputs,
    results,
    silhouettes,
    stage,
    worst,
)
from tests.helpers.opengait import OpenGaitHSTL, PowerPool

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


@each_network
def test_outputs_and_gradients_in_float64(preset: str, older: bool, backend: str) -> None:
    model, sils = network(preset, older=older).double(), silhouettes().double()
    expected = results(model, sils)
    accelerate(model)
    assert worst(results(model, sils), expected) < 1e-9


@pytest.mark.slow
@each_preset
def test_float32_errs_at_most_twice_as_much_as_before(preset: str) -> None:
    skip_without_binary("cpu")
    errors = []
    for seed in range(5):
        model, sils = network(preset, seed), silhouettes(seed=seed)
        reference = results(copy.deepcopy(model).double(), sils.double())
        before = results(model, sils)
        accelerate(model)
        after = results(model, sils)
        assert not torch.equal(before[0], after[0])
        errors.append([part(run, reference) for run in (before, after) for part in (of_outputs, of_gradients)])
    outputs, gradients, our_outputs, our_gradients = (median(values) for values in zip(*errors))
    assert our_outputs <= 2 * outputs, errors
    assert our_gradients <= 2 * gradients, errors


class FlatPool(PowerPool):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(-1).view(x.shape))


class TestLayout:
    """Code around the layers may call `.view`, which asks for contiguous maps."""

    @pytest.mark.parametrize(
        ("pool", "left", "contiguous"),
        [(PowerPool, False, False), (PowerPool, True, False), (FlatPool, True, True)],
        ids=["all replaced", "a pool left alone", "a pool left alone that flattens maps"],
    )
    def test_the_whole_model_goes_on(
        self, pool: type[PowerPool], left: bool, contiguous: bool, model: OpenGaitHSTL, sils: Tensor
    ) -> None:
        model.HPP = pool(model.HPP.bin_num, eps=2e-6 if left else 1e-6).double()
        expected = results(model, sils)
        report = accelerate(model)
        assert [layer.name for layer in report.left_alone] == ["HPP"] * left
        assert f"layers replaced here {'contiguous' if contiguous else 'channels-last'}" in str(report)
        assert worst(results(model, sils), expected) < 1e-9
        assert model.arme2(torch.rand(2, 2, 3, 32, 22).double()).is_contiguous() == contiguous

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
        assert torch.equal(module(x=x), expected)


class TestTypes:
    def test_modes_and_moves(self, model: OpenGaitHSTL, sils: Tensor) -> None:
        accelerate(model)
        assert model.eval().float()(sils.float())[0].dtype == torch.float32
        assert model.train().double()(sils)[0].dtype == torch.float64

    def test_autocast(self) -> None:
        model, sils = network(), silhouettes()
        reference = results(copy.deepcopy(model).double(), sils.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            before = results(model, sils)
            accelerate(model)
            after = results(model, sils)
        assert [a.dtype for a in after] == [b.dtype for b in before]
        assert all(a.isfinite().all() for a in after)
        assert 1e-4 < of_outputs(after, reference) <= 2 * of_outputs(before, reference)
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
                before = _output_or_error(module, x.to(dtype), *others)
                accelerate(module)
                assert _output_or_error(module, x.to(dtype), *others) == before, (name, dtype)


def _output_or_error(module: nn.Module, *args: Any) -> tuple[str, list[float]]:
    try:
        y = module(*args)
    except RuntimeError as fault:
        return str(fault), []
    return str(y.dtype), y.double().flatten().tolist()


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


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant: bool, model: OpenGaitHSTL, sils: Tensor) -> None:
    expected = results(model, sils)
    accelerate(model)
    inner = model.arme3.forward
    model.arme3.forward = lambda x: checkpoint(inner, x, use_reentrant=reentrant)
    assert worst(results(model, sils), expected) < 1e-9


@pytest.mark.slow
def test_compiles_whole(model: OpenGaitHSTL, sils: Tensor) -> None:
    expected = results(model, sils)
    report = accelerate(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert worst(results(model, sils, compiled), expected) < 1e-9
    report.undo()
    assert worst(results(model, sils), expected) < 1e-15


def test_is_exported(model: OpenGaitHSTL) -> None:
    skip_without_binary("cpu")
    accelerate(model)
    x = torch.rand(1, 2, 4, 32, 22).double()
    with hstl_fast.use_backend("cpu"):
        program = torch.export.export(model.eval().arme2, (x,))
        assert "hstl_fast.arme_forward" in str(program.graph)
        assert torch.equal(program.module()(x), model.arme2(x))


@pytest.mark.parametrize("name", ["plain stage", "ARME", "global-local", "strip pool"])
@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_layer_is_exported_by_itself(name: str, strict: bool) -> None:
    module, (x,) = layer(name)
    expected, names = module(x), list(inspect.signature(module.forward).parameters)
    accelerate(module)
    assert list(inspect.signature(module.forward).parameters) == names
    dynamic_shapes = {names[0]: {0: torch.export.Dim.AUTO}}
    program = torch.export.export(module, (x,), dynamic_shapes=dynamic_shapes, strict=strict)
    torch.testing.assert_close(program.module()(x[:1]), expected[:1])


def test_the_signature_of_the_class_is_its_own() -> None:
    assert list(inspect.signature(FastForward).parameters) == ["module", "names"]
