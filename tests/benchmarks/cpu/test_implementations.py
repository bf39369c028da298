"""Every implementation is what its name says."""

import functools
import importlib.util
import sys
import types

import pytest
import torch
from torch import Tensor

from benchmarks.core.correctness import errors
from benchmarks.core.names import WALKERS, ZENTORCH
from benchmarks.core.plain import PlainHSTL, PlainLayer
from benchmarks.cpu import runtimes, workloads
from benchmarks.cpu.compare import float64_reference
from benchmarks.cpu.implementations import (
    Unavailable,
    against_clips,
    arranged,
    named,
)
from hstl_fast import HSTL
from tests.benchmarks.cpu.helpers import OURSELVES, Spoilt, compared
from tests.helpers.networks import narrow_model, walkers


def test_clips_given_are_given_to_one_implementation() -> None:
    clip = walkers(3)
    ours, other = against_clips([clip])
    assert ours.inputs is None
    assert other.inputs == (clip,)
    assert workloads.two_threads("casia-b", WALKERS).threads == 2


def test_feature_maps_come_in_an_implementations_own_layout() -> None:
    x, clip = torch.randn(1, 4, 3, 5, 6), torch.zeros(3, 64, 44, dtype=torch.uint8)
    moved, same = arranged([x, clip], OURSELVES.layout)
    assert moved.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(moved, x)
    assert same is clip


@pytest.mark.parametrize("name", ["torch.compile", "torch.compile bf16"])
def test_a_compiled_network_is_built_from_plain_torch(name: str) -> None:
    model = narrow_model("casia-b")
    (implementation,) = named(name)
    with torch._inductor.config.patch(freezing=False):
        network = implementation.prepare(model, False)
        assert torch._inductor.config.freezing
    assert isinstance(network, PlainHSTL) == (implementation.dtype == "float32")
    assert any(isinstance(module, PlainHSTL) for module in network.modules())
    assert not any(isinstance(module, HSTL) for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())


def test_channels_last_reaches_weights_and_maps() -> None:
    (implementation,) = named("eager channels_last_3d")
    model = narrow_model("casia-b")
    network = implementation.prepare(model, False)
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, PlainLayer):
            weight = getattr(module.layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() == 6:
                assert all(w.is_contiguous(memory_format=torch.channels_last_3d) for w in weight)
            module.register_forward_hook(
                lambda layer, x, y: seen.append(y.dim() != 5 or y.is_contiguous(memory_format=torch.channels_last_3d))
            )
    workload = workloads.embedding("casia-b", (7,))._replace(network=model)
    found = errors(workload.step(network, workload.inputs), float64_reference(workload))
    assert len(seen) == 11
    assert all(seen)
    assert found.fault(workload.bounds["float32"]) is None


def test_bfloat16_answers_come_back_in_float32() -> None:
    (implementation,) = named("eager bf16 autocast")
    workload = workloads.embedding("casia-b", (7,))._replace(
        network=narrow_model("casia-b"), implementations=(implementation,)
    )
    (row,) = compared(workload)
    if row.unavailable:
        pytest.skip(row.unavailable)
    assert row.fault is None
    assert row.errors is not None
    assert row.errors.output > 1e-4
    for training in (False, True):
        embeddings, logits = implementation.prepare(workload.network, training)(torch.stack([workload.inputs[0]] * 2))
        assert embeddings.dtype == torch.float32
        assert logits.dtype == torch.float32 if training else logits is None


RUNTIMES = [
    *("onnxruntime", "openvino", "openvino bf16"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnxruntime int8", "openvino int8")),
]
# An answer in a narrower type has an error that float32 does not have.
LEAST_ERROR = {"float32": 0, "bfloat16": 1e-4, "int8": 1e-3}


def put_in_place_of_zentorch(plug_in: types.ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plug-in's back end be this module, or one that cannot be imported."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == ZENTORCH else find_spec(name))
    monkeypatch.setitem(sys.modules, ZENTORCH, types.ModuleType(ZENTORCH))
    monkeypatch.setitem(sys.modules, f"{ZENTORCH}._compile_backend", plug_in)  # type: ignore[arg-type]


def test_zentorch_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    (implementation,) = named(ZENTORCH)
    with pytest.raises(Unavailable, match="evaluation only"):
        implementation.prepare(narrow_model("casia-b"), True)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda package: None)
        with pytest.raises(Unavailable, match=r"^zentorch is not installed$"):
            implementation.prepare(narrow_model("casia-b"), False)
    put_in_place_of_zentorch(None, monkeypatch)
    with pytest.raises(Unavailable, match=r"^zentorch cannot be loaded: import of zentorch._compile_backend halted"):
        implementation.prepare(narrow_model("casia-b"), False)


def test_zentorch_leaves_no_pass_to_what_is_compiled_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that compiles nothing, but sets its pass for all of inductor, as the real one does."""
    graphs: list[torch.fx.GraphModule] = []

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        torch._inductor.config.joint_custom_post_pass = graphs.append
        graphs.append(graph)
        return graph

    plug_in = types.ModuleType("plug-in")
    plug_in.zentorch_compile = compile_graph  # type: ignore[attr-defined]
    put_in_place_of_zentorch(plug_in, monkeypatch)
    layer = Spoilt(torch.nn.Linear(3, 2), torch.abs).requires_grad_(False)
    x = torch.randn(4, 3)
    expected = layer(x)
    assert torch.equal(runtimes.zentorch(layer, False)(x), expected)
    assert len(graphs) == 1
    assert torch._inductor.config.joint_custom_post_pass is None


@functools.cache
def exported_model() -> HSTL:
    return narrow_model("gait3d", divisor=8)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_gives_the_embeddings_of_any_shape(name: str) -> None:
    (implementation,) = named(name)
    workload = workloads.embedding("gait3d", (4, 4))._replace(
        network=exported_model(), implementations=(implementation,)
    )
    (row,) = compared(workload)
    if row.unavailable:
        pytest.skip(row.unavailable)
    assert row.fault is None
    assert row.errors is not None
    assert row.errors.output > LEAST_ERROR[implementation.dtype]
    network = implementation.prepare(workload.network, False)
    first = workload.step(network, workload.inputs).outputs[0]
    assert isinstance(network, runtimes.Runtime)
    assert network.engines.keys() == {(2, 4, 64, 44)}
    network.release()
    assert torch.equal(first, workload.step(network, workload.inputs).outputs[0])


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_that_is_absent_or_asked_to_train_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (implementation,) = named(name)
    with pytest.raises(Unavailable, match="evaluation only"):
        implementation.prepare(narrow_model("casia-b"), True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(Unavailable, match=r"^onnx is not installed \(extra \[peers\]\)$"):
        implementation.prepare(narrow_model("casia-b"), False)
