"""An execution plan is kept for the next clip of the same lengths, and used only where it is what would be made."""

import copy
import dataclasses
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import HSTL, HSTLConfig, clear_caches, use_algorithm, use_backend
from hstl_fast._caches import cache_bytes
from hstl_fast.backends.cpu import library
from hstl_fast.models import Stage, kept_plans
from hstl_fast.models.cpu_plan import Plan, PlannedMaps
from hstl_fast.nn import ARME
from hstl_fast.ops import _checks, _dispatch
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers

NO_BINARY = _dispatch.why_not("arme", "cpu", "cpu", torch.float32)
pytestmark = [pytest.mark.skipif(NO_BINARY is not None, reason=str(NO_BINARY)), pytest.mark.usefixtures("one_thread")]

CONFIG = HSTLConfig((8,), (Stage((40, 24), (8,)), Stage((40, 16, 8), (8,))), False, 4, 3)
CLIP = walkers(7)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def model() -> HSTL:
    torch.manual_seed(0)
    return HSTL(CONFIG).eval()


@contextmanager
def made() -> Iterator[list[PlannedMaps]]:
    """The plans that are made anew."""
    found: list[PlannedMaps] = []
    plan = PlannedMaps.plan

    def noting(maps: PlannedMaps, network: HSTL) -> Any:
        found.append(maps)
        return plan(maps, network)

    with mock.patch.object(PlannedMaps, "plan", noting):
        yield found


def fresh_answer(model: HSTL, *clips: Tensor) -> Tensor:
    """The embeddings without anything kept."""
    kept, weights = dict(kept_plans._plans), kept_plans._plans
    weights.clear()
    answer = model.embed(clips)
    weights.clear()
    weights.update(kept)
    return answer


def test_a_plan_is_made_once_for_clips_of_the_same_lengths(model: HSTL) -> None:
    clips = [walkers(7, seed) for seed in range(3)]
    with made() as plans:
        answers = [model.embed([clip]) for clip in clips]
        assert len(plans) == 1
        together = [model.embed([CLIP, clip]) for clip in clips]
        assert len(plans) == 2
        model.embed([walkers(8)])
        assert len(plans) == 3
        assert torch.equal(model.embed([clips[1]]), answers[1])
        assert len(plans) == 3
    for clip, answer, pair in zip(clips, answers, together):
        assert torch.equal(answer, fresh_answer(model, clip))
        assert torch.equal(pair, fresh_answer(model, CLIP, clip))
        assert not torch.equal(answer, answers[0]) or clip is clips[0]


def test_frames_are_divided_among_clips_as_they_are_given(model: HSTL) -> None:
    """The same frames, as other clips."""
    frames = walkers(14)
    cuts = [(14,), (7, 7), (5, 9), (9, 5)]
    with torch.no_grad():
        answers = [model(frames[None], cut).embeddings for cut in cuts]
        answers.append(model(frames.view(2, 7, 64, 44)).embeddings)
    for cut, answer in zip([*cuts, (7, 7)], answers):
        alone = [fresh_answer(model, clip) for clip in frames.split(cut)]
        assert distance(answer, torch.cat(alone)) <= rounding(torch.float32, NETWORK)
    assert len({tuple(answer.flatten().tolist()) for answer in answers[:4]}) == 4


def test_plans_of_other_types_of_silhouettes(model: HSTL) -> None:
    """Bytes have a plan, all others share one; either may come first."""
    with made() as plans:
        answers = [model.embed([clip]) for clip in (CLIP, CLIP / 255, CLIP.double() / 255, CLIP)]
    assert len(plans) == 2
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def _in_place(model: HSTL) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)


def _behind_torch(model: HSTL) -> None:
    for parameter in model.parameters():
        parameter.detach().numpy()[...] *= 1.5


def _with_data(model: HSTL) -> None:
    for parameter in model.parameters():
        parameter.data = 1.5 * parameter.data


def _with_other_parameters(model: HSTL) -> None:
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(1.5 * parameter.detach()))


def _with_powers(model: HSTL) -> None:
    model.strips.p.data.fill_(3.25)


def _with_power_of_a_pool(model: HSTL) -> None:
    model.pools[1].p.data[1] = 2.0


def _with_slope(model: HSTL) -> None:
    model.stages[0][0].negative_slope = 0.5  # type: ignore[index, union-attr, assignment]


def _without_activation(model: HSTL) -> None:
    model.stem[0].negative_slope = None  # type: ignore[assignment]


def _with_split(model: HSTL) -> None:
    model.stages[1][0].split[:2] = [24, 32]  # type: ignore[index, union-attr]


def _with_split_of_a_pool(model: HSTL) -> None:
    model.pools[1].split = [24, 40]  # type: ignore[assignment]


def _with_split_of_fta(model: HSTL) -> None:
    model.fta.split = [24, 40]


def _with_eps(model: HSTL) -> None:
    model.norm.eps = 0.5


def _with_statistics(model: HSTL) -> None:
    assert model.norm.running_mean is not None
    model.norm.running_mean = torch.full_like(model.norm.running_mean, 0.25)


def _with_statistics_in_place(model: HSTL) -> None:
    assert model.norm.running_var is not None
    model.norm.running_var.mul_(4)


def _with_a_moved_module(model: HSTL) -> None:
    model.stages[0][0] = ARME(8, 8, (40, 24))  # type: ignore[index, operator]


def _with_exchanged_modules(model: HSTL) -> None:
    model.pools[0], model.pools[1] = copy.deepcopy(model.pools[1]), copy.deepcopy(model.pools[1])
    model.pools[0].split = [64]  # type: ignore[assignment]
    model.pools[0].p = nn.Parameter(model.pools[0].p[:1].detach())


def _with_a_transposed_projection(model: HSTL) -> None:
    proj = model.pools[1].proj
    assert isinstance(proj, Tensor)
    model.pools[1].proj = nn.Parameter((2 * proj.detach()).t().contiguous().t())


def _with_a_transposed_view(model: HSTL) -> None:
    """The same memory and shape in another order."""
    proj = model.pools[1].proj
    assert isinstance(proj, Tensor)
    address = proj.data_ptr()
    proj.data = proj.data.t()
    assert proj.data_ptr() == address


def _with_another_norm(model: HSTL) -> None:
    model.norm = nn.BatchNorm1d(8, eps=0.3).eval()


def _with_a_hook(model: HSTL) -> None:
    model.stages[1][0].register_forward_hook(lambda layer, inputs, y: 2 * y)  # type: ignore[index, union-attr]


def _with_a_hook_on_the_head(model: HSTL) -> None:
    model.parts.register_forward_hook(lambda layer, inputs, y: 2 * y)


def _with_a_forward(model: HSTL) -> None:
    forward = model.strips.forward
    model.strips.forward = lambda *inputs: 2 * forward(*inputs)  # type: ignore[method-assign]


CHANGES = [
    *(_in_place, _behind_torch, _with_data, _with_other_parameters, _with_powers, _with_power_of_a_pool, _with_slope),
    *(_without_activation, _with_split, _with_split_of_a_pool, _with_split_of_fta, _with_eps, _with_statistics),
    *(_with_statistics_in_place, _with_a_moved_module, _with_exchanged_modules, _with_a_transposed_projection),
    _with_a_transposed_view,
    *(_with_another_norm, _with_a_hook, _with_a_hook_on_the_head, _with_a_forward),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_answers_by_what_it_is(model: HSTL, change: Callable[[HSTL], None]) -> None:
    before = model.embed([CLIP])
    change(model)
    answer = model.embed([CLIP])
    assert not torch.equal(answer, before)
    assert torch.equal(answer, fresh_answer(model, CLIP))
    with use_backend("reference"):
        assert distance(answer, model.embed([CLIP])) <= rounding(torch.float32, NETWORK)
    model.embed([walkers(5)])
    assert torch.equal(model.embed([CLIP]), answer)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_powers_are_checked_at_every_call(model: HSTL, value: float) -> None:
    model.embed([CLIP])
    model.pools[0].p.data.fill_(value)
    with pytest.raises(ValueError, match="p must hold exponents that are finite and not 0"):
        model.embed([CLIP])


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        ("stem.0", "negative_slope", True, "negative_slope must be None or a number of at least 0, got True"),
        ("strips", "bins", True, "bins must be a positive integer that divides H = 64, got True"),
        ("stem.0", "split", [True] * 64, "split must be a non-empty list of positive integers"),
        ("pools.0", "split", [64.0], "split must be a non-empty list of positive integers"),
        ("fta", "weight", nn.Parameter(torch.zeros(2, 2, 8, 7)), r"weight must have the shape \[2, 2, 8, 8\]"),
    ],
)
def test_settings_are_checked_at_every_call(model: HSTL, module: str, name: str, value: Any, message: str) -> None:
    """Those too that are equal to what was planned for and of another type."""
    if module == "strips":
        model.strips.bins = 1
        model.parts.weight = nn.Parameter(torch.ones(len(model.parts.weight) - CONFIG.strips + 1, 8, 8))
    if name == "negative_slope":
        model.stem[0].negative_slope = 1.0  # type: ignore[assignment]
    model.embed([CLIP])
    setattr(model.get_submodule(module), name, value)
    with pytest.raises(ValueError, match=message):
        model.embed([CLIP])


def test_options_are_part_of_a_plan(model: HSTL) -> None:
    isa = library.require_cpu().instruction_set()
    sets = library.require_cpu().instruction_sets()
    expected = model.embed([CLIP])
    try:
        with made() as plans:
            with use_algorithm("direct"):
                direct = model.embed([CLIP])
            with use_backend("reference"), mock.patch.object(Plan, "execute", None):
                reference = model.embed([CLIP])
            torch.set_num_threads(2)
            in_two_threads = model.embed([CLIP])
            library.require_cpu().use_instruction_set(sets[-1])
            plain = model.embed([CLIP])
        assert len(plans) == 2 + (sets[-1] != isa)
        for answer in (direct, reference, plain):
            assert distance(answer, expected) <= rounding(torch.float32, NETWORK)
        assert not torch.equal(direct, expected)
        assert torch.equal(in_two_threads, expected)
    finally:
        library.require_cpu().use_instruction_set(isa)
    torch.set_num_threads(1)
    assert torch.equal(model.embed([CLIP]), expected)


def test_training_mode_takes_statistics_of_the_batch(model: HSTL) -> None:
    clips = torch.stack([CLIP, walkers(7, 1)])
    with torch.no_grad():
        evaluated = model(clips).embeddings
        trained = model.train()(clips).embeddings
        again = model.eval()(clips).embeddings
    assert not torch.equal(trained, evaluated)
    assert not torch.equal(again, evaluated)  # the norm has other statistics now
    assert torch.equal(again, fresh_answer(model, *clips))


def test_copies_of_a_model_have_plans_of_their_own(model: HSTL) -> None:
    expected = model.embed([CLIP])
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied.embed([CLIP]), expected)
        _in_place(copied)
        assert not torch.equal(copied.embed([CLIP]), expected)
        assert torch.equal(copied.embed([CLIP]), fresh_answer(copied, CLIP))
        assert torch.equal(model.embed([CLIP]), expected)


def test_one_plan_runs_in_several_threads_at_once() -> None:
    model = narrow_model("casia-b", divisor=8).eval()
    clips = [walkers(30, seed) for seed in range(4)]
    expected = [fresh_answer(model, clip) for clip in clips]
    model.embed([clips[0]])
    together = threading.Barrier(4)

    def embed(i: int) -> list[Tensor]:
        together.wait(timeout=60)
        return [model.embed([clips[i]]) for _ in range(5)]

    with made() as plans, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(embed, range(4)))
    # Two threads that look for a plan at once may each make one.
    assert len(plans) < 20
    assert all(torch.equal(got, alone) for answers, alone in zip(results, expected) for got in answers)


def test_memory_stays_while_a_plan_reads_it(model: HSTL) -> None:
    """Another thread may give a parameter other memory then, as `model.double()` does."""
    proj, mean = model.pools[1].proj, model.norm.running_mean
    assert proj is not None
    assert mean is not None
    freed = list[int]()
    tensors: list[Tensor] = [model.fta.weight, model.fta.bias, proj, model.parts.weight, model.norm.bias, mean]
    for i, tensor in enumerate(tensors):
        array = tensor.detach().numpy().copy()
        weakref.finalize(array, freed.append, i)
        tensor.data = torch.from_numpy(array)
        del array
    expected, execute = model.embed([CLIP]), Plan.execute

    def execute_late(plan: Plan, bases: list[int]) -> None:
        for tensor in tensors:
            tensor.data = torch.zeros_like(tensor)
        assert not freed
        execute(plan, bases)

    with made() as plans, mock.patch.object(Plan, "execute", execute_late):
        assert torch.equal(model.embed([CLIP]), expected)
    assert not plans
    assert len(freed) == len(tensors)


def test_a_plan_reads_the_memory_that_was_checked(model: HSTL) -> None:
    """Another thread may convert a parameter between the two."""
    expected, check = model.embed([CLIP]), _checks.parameter
    clear_caches()
    tensors: list[Tensor] = []
    for module in model.modules():
        own = [] if isinstance(module, ARME) else module.named_parameters(recurse=False)
        tensors += [parameter for name, parameter in own if name != "p"]  # the plan has powers of its own
    tensors += [buffer for buffer in model.norm.buffers() if buffer.is_floating_point()]
    converted = list[Tensor]()

    def convert(tensor: Tensor, *arguments: Any) -> None:
        check(tensor, *arguments)
        for checked in tensors:
            if checked.data_ptr() == tensor.data_ptr():
                checked.data = torch.full_like(checked, torch.nan, dtype=torch.float64)
                converted.append(checked)

    with mock.patch.object(_checks, "parameter", convert):
        answer = model.embed([CLIP])
    assert len(converted) == len(tensors) - 1  # all but the classifier
    assert torch.equal(answer, expected)
    assert not kept_plans._plans


def test_a_plan_is_not_kept_where_the_network_changes_while_it_is_made(model: HSTL) -> None:
    plan = PlannedMaps.plan

    def changing(maps: PlannedMaps, network: HSTL) -> Any:
        finished = plan(maps, network)
        _with_other_parameters(model)
        return finished

    with mock.patch.object(PlannedMaps, "plan", changing):
        model.embed([CLIP])
    assert not kept_plans._plans


def _with_another_slope(model: HSTL) -> Callable[[], None]:
    layer, before = model.stem[0], model.stem[0].negative_slope
    layer.negative_slope = 0.5
    return lambda: setattr(layer, "negative_slope", before)


def _with_another_split(model: HSTL) -> Callable[[], None]:
    split = model.fta.split
    split[:] = split[::-1]
    return split.reverse


def _with_other_powers(model: HSTL) -> Callable[[], None]:
    before = model.strips.p.detach().clone()
    model.strips.p.data.fill_(2.0)
    return lambda: model.strips.p.data.copy_(before) and None


def _with_other_memory(model: HSTL) -> Callable[[], None]:
    before = model.fta.weight.data
    model.fta.weight.data = 2.0 * before
    return lambda: setattr(model.fta.weight, "data", before)


def _with_other_layers(model: HSTL) -> Callable[[], None]:
    first = model.pools[0]
    model.pools[0] = copy.deepcopy(first)
    model.pools[0].proj.data.mul_(2.0)
    return lambda: setattr(model.pools, "0", first)


@pytest.mark.parametrize(
    "change",
    [_with_another_slope, _with_another_split, _with_other_powers, _with_other_memory, _with_other_layers],
)
def test_a_plan_is_of_the_state_that_it_is_kept_for(model: HSTL, change: Callable[[HSTL], Callable[[], None]]) -> None:
    """Another thread may change the network after its state is read, and change it back before it is read again."""
    expected, plan, begin = fresh_answer(model, CLIP), PlannedMaps.plan, PlannedMaps.__init__
    restore = list[Callable[[], None]]()

    def changed(*arguments: Any) -> None:
        restore.append(change(model))
        begin(*arguments)

    def changed_back(maps: PlannedMaps, network: HSTL) -> Any:
        finished = plan(maps, network)
        restore.pop()()
        return finished

    with mock.patch.object(PlannedMaps, "__init__", changed), mock.patch.object(PlannedMaps, "plan", changed_back):
        assert torch.equal(model.embed([CLIP]), expected)
    assert len(kept_plans._plans) == 1
    with made() as plans:
        assert torch.equal(model.embed([CLIP]), expected)
    assert not plans


def test_weights_have_the_shapes_of_the_plan(model: HSTL) -> None:
    """Another thread may give the network other layers between its state and the snapshot."""
    torch.manual_seed(1)
    other = HSTL(dataclasses.replace(CONFIG, stem=(16,))).eval()

    def changed(network: HSTL) -> Any:
        model.stem, model.stages[0], model.pools[0] = other.stem, other.stages[0], other.pools[0]
        return snapshot(network)

    snapshot = kept_plans.snapshot
    with mock.patch.object(kept_plans, "snapshot", changed):
        answer = model.embed([CLIP])
    assert torch.equal(answer, fresh_answer(model, CLIP))


def test_a_layer_that_stands_twice_in_a_stage_is_read_once(model: HSTL) -> None:
    stage = model.stages[0]
    stage.append(stage[0])  # type: ignore[operator, index]
    answer = model.embed([CLIP])
    with use_backend("reference"):
        assert distance(answer, model.embed([CLIP])) <= rounding(torch.float32, NETWORK)
    with made() as plans:
        assert torch.equal(model.embed([CLIP]), answer)
    assert not plans


class Bare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_modules_that_no_plan_reads_may_be_of_any_kind(model: HSTL) -> None:
    expected = model.embed([CLIP])
    clear_caches()
    model.classifier = torch.jit.script(Bare())
    assert torch.equal(model.embed([CLIP]), expected)


def test_few_plans_are_kept(model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_plans, "MOST_PLANS", 2)
    for frames in (3, 4, 5):
        model.embed([walkers(frames)])
    with made() as plans:
        model.embed([walkers(5)])
        model.embed([walkers(4)])
        assert not plans
        model.embed([walkers(3)])
        model.embed([walkers(4)])
        assert len(plans) == 1
    assert len(kept_plans._plans) == 2


def test_a_plan_keeps_no_model_and_no_memory_of_maps(model: HSTL) -> None:
    model.embed([CLIP])
    assert 0 < cache_bytes()["execution plans"] < 50_000
    held = [value for plan in kept_plans._plans.values() for value in plan]
    assert not any(isinstance(value, (nn.Module, Tensor)) for value in held)
    clear_caches()
    assert not kept_plans._plans
