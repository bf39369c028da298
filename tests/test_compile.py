"""Whole networks under torch's compilers, tracers and activation checkpointing."""

import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import hstl_fast
from hstl_fast import HSTL, HSTLConfig
from hstl_fast.export import Embedder
from hstl_fast.losses import cross_entropy, triplet_loss
from hstl_fast.models import Stage
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers

NAMES = ["casia-b", "oumvlp", "gait3d"]
each_preset = pytest.mark.parametrize("preset", NAMES)
each_mode = pytest.mark.parametrize("use_reentrant", [False, True], ids=["not reentrant", "reentrant"])


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Torch counts the graphs of one function against a limit, whatever test compiled them."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


only_native = pytest.mark.parametrize("backend", ["cpu"], indirect=True)
reference_is_slow = pytest.mark.parametrize(
    "backend", ["cpu", pytest.param("reference", marks=pytest.mark.slow)], indirect=True
)


def smallest(dtype: torch.dtype = torch.float32) -> HSTL:
    """An untrained network with every kind of layer and hardly any channels, in evaluation mode."""
    torch.manual_seed(0)
    stages = (Stage((20, 12), (3,)), Stage((4, 28), (4,)))
    model = HSTL(HSTLConfig((2,), stages, pool=True, strips=4, num_classes=3)).eval()
    return model if dtype == torch.float32 else model.to(dtype)


def clips(n: int, t: int) -> Tensor:
    return torch.stack([walkers(t, seed) for seed in range(n)])


class Counter:
    """A compiler for torch.compile that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def operators_in(program: torch.export.ExportedProgram) -> set[str]:
    """The operators of this package that an exported program calls."""
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return {
        target.name() for target in targets if isinstance(target, torch._ops.OpOverload) and "hstl" in target.name()
    }


def step(model: nn.Module, silhouettes: Tensor, labels: Tensor, seq_lens: list[int] | None) -> Tensor:
    """What training minimises."""
    out = model(silhouettes, seq_lens)
    return triplet_loss(out.embeddings, labels) + cross_entropy(out.logits, labels, smoothing=0.1)


def assert_steps_agree(model: HSTL, compiled: Callable[..., Tensor], tolerance: float) -> None:
    """Loss, gradients and running statistics of one training step each, fixed and packed."""
    labels = torch.tensor([0, 0, 1])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for silhouettes, lens in ((clips(3, 6), None), (walkers(13)[None], [6, 4, 3])):
        found = []
        for call in (step, compiled):
            model.load_state_dict(state)
            model.zero_grad()
            loss = call(model, silhouettes, labels, lens)
            loss.backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            found.append([loss.detach(), model.norm.running_mean.clone(), *gradients])
        for graph, eager in zip(found[1], found[0], strict=True):
            assert (graph - eager).norm() <= tolerance * eager.norm()


@pytest.mark.slow
@only_native
def test_training_steps_compile_whole(backend: str) -> None:
    model = smallest(torch.float64).train()
    assert_steps_agree(model, torch.compile(step, fullgraph=True, backend="aot_eager"), 1e-9)


@pytest.mark.slow
@each_preset
@only_native
def test_training_steps_of_presets_compile_whole(preset: str, backend: str) -> None:
    model = narrow_model(preset, dtype=torch.float64, divisor=16).train()
    assert_steps_agree(model, torch.compile(step, fullgraph=True, backend="aot_eager"), 1e-9)


@pytest.mark.slow
def test_a_whole_preset_trains_with_inductor() -> None:
    model = HSTL.from_preset("casia-b", num_classes=3).train()
    assert_steps_agree(model, torch.compile(step, fullgraph=True), 2e-3)


@pytest.mark.slow
@reference_is_slow
def test_any_number_of_sequences_and_frames_in_three_graphs(backend: str) -> None:
    model, counter = smallest(), Counter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for n, t in ((1, 7), (2, 8), (3, 9), (2, 30), (4, 6)):
        assert torch.equal(compiled(clips(n, t)).embeddings, model(clips(n, t)).embeddings)
    assert counter.graphs <= 3


@pytest.mark.slow
@only_native
def test_any_lengths_of_packed_sequences_in_two_graphs(backend: str) -> None:
    model, counter = smallest(), Counter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for lens in ([7, 8], [9, 5], [6, 6], [30, 12]):
        packed = walkers(sum(lens))[None]
        assert torch.equal(compiled(packed, lens).embeddings, model(packed, lens).embeddings)
    assert counter.graphs == 2


@only_native
def test_networks_without_gradients_compile(backend: str) -> None:
    model = smallest()
    compiled = torch.compile(model, fullgraph=True, backend=Counter())
    with torch.no_grad():
        for silhouettes, lens in ((clips(2, 7), None), (walkers(13)[None], [6, 7])):
            expected = model(silhouettes, lens).embeddings
            assert distance(compiled(silhouettes, lens).embeddings, expected) <= rounding(torch.float32, NETWORK)


@pytest.mark.slow
@only_native
def test_short_sequences_compile(backend: str) -> None:
    model = smallest()
    compiled = torch.compile(model, fullgraph=True, backend=Counter())
    for t in (1, 2):
        assert torch.equal(compiled(clips(1, t)).embeddings, model(clips(1, t)).embeddings)


@only_native
def test_embedders_compile_without_the_classifier(backend: str) -> None:
    model = smallest().train()
    embedder = Embedder(model)
    assert not any("classifier" in name for name, _ in embedder.named_parameters())
    expected = embedder(clips(2, 5))
    assert distance(model.embed(list(clips(2, 5))), expected) <= rounding(torch.float32, NETWORK)
    assert torch.equal(torch.compile(embedder, fullgraph=True, backend=Counter())(clips(2, 5)), expected)
    assert torch.equal(embedder(walkers(9)[None], [4, 5]), smallest()(walkers(9)[None], [4, 5]).embeddings)
    assert model.training
    assert hasattr(model, "classifier")
    with pytest.raises(TypeError, match="model must be an HSTL, got Linear"):
        Embedder(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("silhouettes", "lens", "message"),
    [
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), None, r"silhouettes must have the shape \[N, T, 64, 44\]"),
        (torch.zeros(1, 3, 64, 44, dtype=torch.int32), None, "silhouettes must be uint8 0..255 or floating 0..1"),
        (clips(2, 3), [3, 3], "silhouettes must be packed"),
        (clips(1, 6), [3, 4], r"seq_lens must sum to the frames: sum\(\[3, 4\]\) = 7, T = 6"),
        (clips(1, 6), torch.tensor([3, 3]), "seq_lens must be a list under torch.compile"),
    ],
)
def test_compiled_networks_refuse_what_networks_refuse(silhouettes: Tensor, lens: Any, message: str) -> None:
    compiled = torch.compile(smallest(), fullgraph=True, backend=Counter())
    with pytest.raises(Exception, match=message):
        compiled(silhouettes, lens)


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=[] if name == "gait3d" else pytest.mark.slow) for name in NAMES]
)
@only_native
def test_exported_programs_call_the_operators(preset: str, backend: str) -> None:
    model = narrow_model(preset, divisor=16).eval()
    program = torch.export.export(model, (clips(1, 7),))
    supports = {"grow_support", "window_support"} | ({"max_pool_support"} if model.config.pool else set())
    expected_names = {"frame_maximum", "arme_forward", "astp_forward", "fta_forward", *supports}
    assert operators_in(program) == {f"hstl_fast::{name}" for name in expected_names}
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    expected = model(clips(1, 7))
    for loaded in (program, torch.export.load(file)):
        out = loaded.module()(clips(1, 7))
        assert torch.equal(out[0], expected.embeddings)
        assert torch.equal(out[1], expected.logits)


@reference_is_slow
def test_programs_for_any_number_of_sequences_and_frames(backend: str) -> None:
    embedder = Embedder(smallest())
    sizes = {0: torch.export.Dim("n", min=1), 1: torch.export.Dim("frames", min=6)}
    program = torch.export.export(embedder, (clips(2, 7),), dynamic_shapes=(sizes,))
    assert bool(operators_in(program)) == (backend == "cpu")
    assert not any("classifier" in name for name in program.state_dict)
    run = program.module()
    for n, t in ((1, 6), (2, 7), (3, 30)):
        assert distance(run(clips(n, t)), embedder(clips(n, t))) <= rounding(torch.float32, NETWORK)


@only_native
def test_programs_of_packed_sequences_and_of_training(backend: str) -> None:
    model, labels = smallest(), torch.tensor([0, 1])
    program = torch.export.export(model, (walkers(9)[None], [4, 5]))
    assert torch.equal(program.module()(walkers(9)[None], [4, 5])[0], model(walkers(9)[None], [4, 5])[0])
    model.train()
    program = torch.export.export(model, (clips(2, 4),))
    losses = [triplet_loss(call(clips(2, 4))[0], labels) for call in (program.module(), model)]
    # Distances between embeddings that are alike cancel: relative to the margin, which every term has.
    assert abs(losses[0] - losses[1]) <= 0.2 * rounding(torch.float32, NETWORK)


def checkpointed(model: HSTL, use_reentrant: bool) -> list[nn.Module]:
    """Let every layer after the stem compute its result once more in backward; the list notes every time it does.

    The stem is left out: a checkpoint that is reentrant needs an input with a gradient.
    """
    computed: list[nn.Module] = []
    for layer in itertools.chain(*(stage.children() for stage in model.stages), [model.fta, model.strips], model.pools):

        def again(*inputs: Any, layer: nn.Module = layer, forward: Callable[..., Tensor] = layer.forward) -> Tensor:
            def compute(*inputs: Any) -> Tensor:
                computed.append(layer)
                return forward(*inputs)

            return checkpoint(compute, *inputs, use_reentrant=use_reentrant)

        layer.forward = again
    return computed


def gradients(call: Callable[..., Tensor], model: HSTL, lens: list[int] | None) -> list[Tensor]:
    """Of one training step."""
    model.zero_grad()
    silhouettes = clips(2, 5) if lens is None else walkers(sum(lens))[None]
    call(model, silhouettes, torch.tensor([0, 1]), lens).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@each_mode
@pytest.mark.parametrize("lens", [None, [4, 3]], ids=["batch", "packed"])
@only_native
def test_checkpointed_layers_have_the_same_gradients(use_reentrant: bool, lens: list[int] | None, backend: str) -> None:
    model = smallest(torch.float64).train()
    expected = gradients(step, model, lens)
    computed = checkpointed(model, use_reentrant)
    found = gradients(step, model, lens)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert len(computed) == 2 * len(set(computed)) > 0


@pytest.mark.slow
@only_native
def test_checkpointed_layers_compile(backend: str) -> None:
    model = smallest(torch.float64).train()
    expected = gradients(step, model, None)

    def checkpointed_stage(model: HSTL, silhouettes: Tensor, labels: Tensor, lens: None) -> Tensor:
        return checkpoint(step, model, silhouettes, labels, lens, use_reentrant=False)

    compiled = torch.compile(checkpointed_stage, fullgraph=True, backend="aot_eager")
    for a, b in zip(gradients(compiled, model, None), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_gradients_through_torch_func(backend: str) -> None:
    model, silhouettes = smallest(torch.float64), clips(2, 4)
    model(silhouettes).logits.square().sum().backward()
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], silhouettes: Tensor) -> Tensor:
        return func.functional_call(model, parameters, (silhouettes,)).logits.square().sum()

    detached = {name: value.detach() for name, value in parameters.items()}
    found = func.grad(loss)(detached, silhouettes)
    each = func.vmap(func.grad(loss), in_dims=(None, 0))(detached, silhouettes[:, None])
    for name, parameter in parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(each[name].sum(0), parameter.grad, rtol=1e-9, atol=1e-12)


def test_fractions_are_not_looked_at_inside_transforms(backend: str) -> None:
    model = smallest(torch.float64)
    silhouettes = clips(2, 3).double()[:, None] / 255
    found = func.vmap(lambda x: model(x).embeddings)(silhouettes)
    torch.testing.assert_close(found[:, 0], model(silhouettes[:, 0]).embeddings, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:DeprecationWarning")
def test_traced_networks_take_any_number_of_frames_above_two(backend: str) -> None:
    embedder = Embedder(smallest())
    traced = torch.jit.trace(embedder, (clips(2, 7),))
    for n, t in ((1, 3), (2, 7), (3, 30)):
        assert distance(traced(clips(n, t)), embedder(clips(n, t))) <= rounding(torch.float32, NETWORK)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_cannot_be_scripted_or_traced_says_so() -> None:
    model = smallest()
    with pytest.raises(RuntimeError, match=r"HSTL cannot be compiled by torch\.jit\.script; use torch\.compile or"):
        torch.jit.script(model)
    with pytest.raises(RuntimeError, match=r"ARME cannot be compiled by torch\.jit\.script"):
        torch.jit.script(nn.Sequential(model.stem[0]))
    for module in (model, model.stem[0], nn.Sequential(model.fta)):
        with pytest.raises(TypeError, match=r"got a Proxy of torch\.fx\.symbolic_trace.* torch\.export\.export"):
            torch.fx.symbolic_trace(module)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_shapes_without_numbers(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        network = smallest()
        out = network(torch.zeros(2, 5, 64, 44, dtype=dtype))
        packed = network(torch.zeros(1, 9, 64, 44, dtype=dtype), [1, 2, 6])
    assert (out.embeddings.device.type, out.embeddings.shape) == ("meta", (2, network.config.parts, 4))
    assert packed.logits.shape == (3, network.config.parts, 3)
    with FakeTensorMode():
        fake = smallest()(torch.zeros(2, 5, 64, 44, dtype=dtype))
    assert fake.logits.shape == (2, network.config.parts, 3)
    assert not caplog.records
    with hstl_fast.use_backend("cpu"), pytest.raises(RuntimeError, match="cpu backend computes tensors on the CPU"):
        network(torch.zeros(2, 5, 64, 44, device="meta"))
