"""A network in evaluation is computed by an execution plan of native calls, which changes nothing but the time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hstl_fast import HSTL, PRESETS, clear_caches, use_algorithm, use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.models.cpu_plan import Plan, PlannedMaps
from hstl_fast.nn import ARME, ASTP, FTA, StripPool
from hstl_fast.ops import _dispatch
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers

NO_BINARY = _dispatch.why_not("arme", "cpu", "cpu", torch.float32)
pytestmark = pytest.mark.skipif(NO_BINARY is not None, reason=str(NO_BINARY))
LENGTHS = (17, 30, 1, 2, 3, 6)


@contextmanager
def counted() -> Iterator[list[Plan]]:
    """The execution plans that are run."""
    finished: list[Plan] = []
    execute = Plan.execute

    def finishing(plan: Plan, bases: list[int]) -> None:
        finished.append(plan)
        execute(plan, bases)

    with mock.patch.object(Plan, "execute", finishing):
        yield finished


def by_layers(model: HSTL, *arguments: Any) -> Tensor:
    """The embeddings layer by layer."""
    with mock.patch("hstl_fast.models.hstl.planned_embeddings", return_value=None), torch.no_grad():
        embeddings: Tensor = model(*arguments).embeddings
    return embeddings


def assert_same(model: HSTL, embeddings: Tensor, expected: Tensor) -> None:
    """Bit for bit, but where a convolution finds the 2x2 maximum: its tiles begin at even columns."""
    if model.config.pool and embeddings.dtype == torch.float32:
        assert distance(embeddings, expected) <= rounding(embeddings.dtype, NETWORK)
    else:
        assert torch.equal(embeddings, expected)


def planned(model: HSTL, *arguments: Any, own_head: bool = False) -> Tensor:
    """The embeddings by an execution plan; with `own_head` also the head, which rounds differently then."""
    with counted() as plans, torch.no_grad():
        if own_head:
            embeddings: Tensor = model(*arguments).embeddings
        else:
            with mock.patch("hstl_fast.models.plan_state._includes_head", return_value=False):
                embeddings = model(*arguments).embeddings
    assert len(plans) == 1
    return embeddings


@pytest.mark.parametrize("algorithm", ["auto", "winograd", "direct"])
@pytest.mark.parametrize("preset", PRESETS)
def test_packed_sequences_get_what_the_layers_give(preset: str, algorithm: str) -> None:
    model = narrow_model(preset).eval()
    clips = torch.cat([walkers(t, seed) for seed, t in enumerate(LENGTHS)])[None]
    clips[:, 5:9] = 0
    with use_algorithm(algorithm):
        assert_same(model, planned(model, clips, LENGTHS), by_layers(model, clips, LENGTHS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_a_batch_gets_what_the_layers_give(preset: str, dtype: torch.dtype) -> None:
    model = narrow_model(preset, dtype=dtype).eval()
    clips = torch.stack([walkers(9, seed) for seed in range(3)])
    assert_same(model, planned(model, clips), by_layers(model, clips))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_the_head_is_torchs_but_for_rounding(preset: str, dtype: torch.dtype) -> None:
    model = narrow_model(preset, dtype=dtype).eval()
    clips = torch.stack([walkers(6, seed) for seed in range(6)])
    expected = by_layers(model, clips)
    assert distance(planned(model, clips, own_head=True), expected) <= rounding(dtype, NETWORK)


def _with_sync_norm(model: HSTL) -> None:
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _with_hook_on_parts(model: HSTL) -> None:
    model.parts.register_forward_hook(lambda layer, inputs, y: 2 * y)


@pytest.mark.parametrize("change", [_with_sync_norm, _with_hook_on_parts])
def test_a_changed_head_is_called(change: Callable[[HSTL], None]) -> None:
    model, clip = narrow_model("casia-b").eval(), walkers(6)[None]
    change(model)
    assert torch.equal(planned(model, clip, own_head=True), by_layers(model, clip))


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_silhouettes_of_any_type(algorithm: str) -> None:
    """Bytes as they are, numbers as the model's; together they are what they are alone."""
    model, clip = narrow_model("casia-b"), walkers(6)
    with use_algorithm(algorithm):
        bytes_, single, double = (model.embed([c]) for c in (clip, clip / 255, clip.double() / 255))
        assert torch.equal(bytes_, single)
        assert torch.equal(bytes_, double)
        together = model.embed([clip, clip.double() / 255])
        assert torch.equal(together, model.embed([clip, clip]))


@pytest.mark.parametrize("silhouettes", [torch.zeros(1, 4, 64, 44), torch.ones(1, 4, 64, 44)])
def test_blank_and_full_silhouettes(silhouettes: Tensor) -> None:
    model = narrow_model("gait3d").eval()
    assert_same(model, planned(model, silhouettes), by_layers(model, silhouettes))


def test_embed_records() -> None:
    model = narrow_model("casia-b")
    with counted() as plans:
        embeddings = model.embed([walkers(12), walkers(7)])
    assert len(plans) == 1
    clips = torch.cat([walkers(12), walkers(7)])[None]
    assert torch.equal(embeddings, planned(model.eval(), clips, [12, 7], own_head=True))


@pytest.mark.parametrize("lens", [(1,), (2,), (10,), (30,), (3, 7, 16)], ids=str)
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_any_number_of_threads_gives_the_same(preset: str, lens: tuple[int, ...]) -> None:
    """Few frames for many threads, too: these do not find frame maxima on the way."""
    model, before = narrow_model(preset).eval(), torch.get_num_threads()
    clips = torch.cat([walkers(t, seed) for seed, t in enumerate(lens)])[None]
    answers = {}
    try:
        for threads in (1, 2, 3, 5, 8, 16):
            torch.set_num_threads(threads)
            answers[threads] = planned(model, clips, lens, own_head=True)
    finally:
        torch.set_num_threads(before)
    assert [threads for threads, answer in answers.items() if not torch.equal(answer, answers[1])] == []


class Watching(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(str(function))
        return function(*args, **(kwargs or {}))


def test_who_watches_sees_every_layer() -> None:
    model, clip = narrow_model("casia-b").eval(), walkers(6)[None]
    with Watching() as watching, counted() as plans, torch.no_grad():
        watched = model(clip).embeddings
    assert not plans
    assert {"hstl_fast.arme_forward.default", "hstl_fast.astp_inference.default"} <= watching.seen
    assert torch.equal(watched, planned(model, clip))


def _with_hook(model: HSTL) -> None:
    model.pools[0].register_forward_hook(lambda *_: None)


def _with_another_layer(model: HSTL) -> None:
    model.strips = nn.Sequential(model.strips)  # type: ignore[assignment]
    model.strips.forward = lambda x, *_: model.strips[0](x)  # type: ignore[index, operator]


@pytest.mark.parametrize(
    "context",
    [
        torch.enable_grad,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: use_backend("reference"),
    ],
    ids=["gradients", "autocast", "reference"],
)
def test_not_everything_is_recorded(context: Callable[[], AbstractContextManager[Any]]) -> None:
    model, clip = narrow_model("casia-b").eval(), walkers(6)[None]
    with counted() as plans, torch.no_grad(), context():
        model(clip)
    assert not plans


def test_debugging_looks_at_every_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSTL_FAST_DEBUG", "1")
    with counted() as plans:
        narrow_model("casia-b").embed([walkers(6)])
    assert not plans


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("stages.0.0.weight", (2, 8, 5, 3, 3, 3), r"weight must have the shape \[2, c_out, 8, 3, 3, 3\]"),
        ("fta.weight", (2, 2, 15, 16), r"weight must have the shape \[2, 2, 16, 16\]"),
        ("fta.bias", (2, 2, 15), r"bias must have the shape \[2, 2, 16\]"),
        ("pools.1.p", (3,), r"p must have the shape \[2\]"),
        ("pools.1.proj", (32, 15), r"proj must have the shape \[c_out, 16\]"),
        ("strips.p", (2,), r"p must have the shape \[1\]"),
        ("parts.weight", (72, 32, 32), r"weight must have the shape \[73, 32, c_out\]"),
        ("norm.bias", (31,), r"norm must have the shape \[32\]"),
    ],
)
def test_wrong_parameters_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    model = narrow_model("casia-b").eval()
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, nn.Parameter(torch.zeros(shape)))
    with pytest.raises(ValueError, match=message):
        model.embed([walkers(6)])


class Marked(Tensor):
    """A tensor of another class."""


def _marked(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().as_subclass(Marked)


def _with_marked_parameter(model: HSTL) -> None:
    model.strips.p = nn.Parameter(_marked(model.strips.p))


def _with_marked_attribute(model: HSTL) -> None:
    layer, weight = model.stem[0], model.stem[0].weight
    assert isinstance(weight, Tensor)
    del layer.weight
    layer.weight = _marked(weight)


def _with_negated_weight(model: HSTL) -> None:
    model.pools[1].proj = nn.Parameter(torch._neg_view(-model.pools[1].proj.detach()))


@pytest.mark.parametrize(
    "change",
    [_with_hook, _with_another_layer, _with_marked_parameter, _with_marked_attribute, _with_negated_weight],
)
def test_a_changed_network_runs_layer_by_layer(change: Callable[[HSTL], None]) -> None:
    model, clip = narrow_model("casia-b").eval(), walkers(6)[None]
    expected = planned(model, clip)
    change(model)
    with counted() as plans, torch.no_grad():
        embeddings = model(clip).embeddings
    assert not plans
    assert distance(torch.Tensor(embeddings), expected) <= rounding(torch.float32, NETWORK)


def _with_marked_parts(model: HSTL) -> None:
    model.parts.weight = nn.Parameter(_marked(model.parts.weight))


def _with_marked_mean(model: HSTL) -> None:
    assert model.norm.running_mean is not None
    model.norm.running_mean = _marked(model.norm.running_mean)


def _with_negated_parts(model: HSTL) -> None:
    model.parts.weight = nn.Parameter(torch._neg_view(-model.parts.weight.detach()))


@pytest.mark.parametrize("change", [_with_marked_parts, _with_marked_mean, _with_negated_parts])
def test_the_head_reads_only_ordinary_tensors(change: Callable[[HSTL], None]) -> None:
    model, clip = narrow_model("casia-b").eval(), walkers(6)[None]
    expected = by_layers(model, clip)
    change(model)
    embeddings = planned(model, clip, own_head=True)
    torch.testing.assert_close(torch.Tensor(embeddings), expected, rtol=0, atol=0)


def test_another_default_device_changes_nothing() -> None:
    model, clip = narrow_model("casia-b"), walkers(6)
    expected = model.embed([clip])
    clear_caches()
    with torch.device("meta"):
        assert torch.equal(model.embed([clip]), expected)


def test_wrong_settings_are_named() -> None:
    model = narrow_model("casia-b").eval()
    model.strips = StripPool(128)
    with pytest.raises(ValueError, match="bins must be a positive integer that divides H = 64, got 128"):
        model.embed([walkers(6)])
    model = narrow_model("casia-b").eval()
    model.stem[0].negative_slope = -0.5  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"negative_slope must be None or a number of at least 0, got -0\.5"):
        model.embed([walkers(6)])


@pytest.mark.parametrize("kind", [ARME, ASTP, FTA, StripPool])
def test_a_changed_class_is_called(kind: type[nn.Module]) -> None:
    model, called = narrow_model("casia-b").eval(), []
    forward = kind.forward

    def noting(self: nn.Module, *arguments: Any) -> Any:
        called.append(self)
        return forward(self, *arguments)

    with mock.patch.object(kind, "forward", noting):
        model.embed([walkers(6)])
    assert called


def test_maxima_of_many_short_sequences_are_not_found_by_every_thread() -> None:
    """Where the threads' own maxima would be more than half of the maps, the map is written, and read again."""
    model, clips = narrow_model("casia-b").eval(), torch.cat([walkers(3, s) for s in range(8)])[None]
    before, asked = torch.get_num_threads(), []
    native = library.require_cpu()

    class Asking:
        def __getattr__(self, name: str) -> Any:
            return getattr(native, name)

        def arme_workspace(self, *arguments: Any) -> int:
            asked.append(arguments[-1])
            return int(native.arme_workspace(*arguments))

    try:
        torch.set_num_threads(3)
        with mock.patch.object(library, "require_cpu", Asking):
            embeddings = planned(model, clips, [3] * 8)
        torch.set_num_threads(1)
        assert torch.equal(planned(model, clips, [3] * 8), embeddings)
    finally:
        torch.set_num_threads(before)
    assert asked
    assert not any(asked)


def test_maps_share_two_areas() -> None:
    """Two maps are alive at a time, and a workspace."""
    model, planned_maps = narrow_model("casia-b", divisor=1).eval(), []
    plan = PlannedMaps.plan

    def noting(maps: PlannedMaps, network: HSTL) -> Plan:
        planned_maps.append(maps)
        return plan(maps, network)

    with mock.patch.object(PlannedMaps, "plan", noting):
        model.embed([walkers(30)])
    (maps,), frame = planned_maps, 64 * 44 * 4
    assert {area.size for area in maps._maps} == {30 * frame * 64, 30 * frame * 32}
    assert maps._beside.size == 0
