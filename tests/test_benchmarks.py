"""The benchmarks measure what they say, and refuse to time a wrong answer; no times are judged here."""

import functools
import getpass
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import divide, executed, flops, interleave, machine, memory, runtimes, table, workloads
from benchmarks.compare import FULL, Effort, Prepared, Row, compare, describe, take_turns, truth
from benchmarks.executed import Products, Support
from benchmarks.gate import Answer, Bounds, errors
from benchmarks.memory import Peak
from benchmarks.names import IN_CLIPS, ONE_THREAD, PEOPLE, WALKERS
from benchmarks.plain import PlainHSTL, PlainLayer, frozen
from benchmarks.rivals import NETWORKS, OURS, Rival, Unavailable, against_clips, against_one_thread, arranged, named
from benchmarks.workloads import Workload
from hstl_fast import HSTL, PRESETS, use_algorithm, use_backend
from hstl_fast._recorded import RecordedMaps
from hstl_fast.nn import ARME
from hstl_fast.ops import _native
from tests.golden import recipe
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.networks import narrow_config, narrow_model, walkers

REPOSITORY = Path(__file__).parent.parent
PROBES = Effort(seconds=0.0, fewest=2, most=2)
EAGER, OURSELVES = named("eager", OURS)


def small_workload(*rivals: Rival, training: bool = False) -> Workload:
    torch.manual_seed(0)
    layer = ARME(4, 8, [3, 5])
    x, direction = torch.randn(1, 4, 5, 8, 6), torch.randn(1, 8, 5, 8, 6)
    return Workload(
        name="small",
        group="arme forward",
        preset="none",
        network=layer,
        inputs=[x, direction] if training else [x],
        step=workloads.forward_and_backward if training else workloads.forward,
        training=training,
        bounds={"float32": Bounds(1e-5, 1e-4 if training else None), "bfloat16": Bounds(1e-2)},
        products=Products(1000, 900, 120, None, 110),
        bytes=4000,
        rivals=rivals,
    )


def compared(workload: Workload) -> list[Row]:
    return compare(workload, PROBES, take_turns, Prepared())


class Spoilt(nn.Module):
    """A layer whose output passes through a function that spoils it."""

    def __init__(self, layer: nn.Module, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.spoil = spoil

    def forward(self, x: Tensor) -> Tensor:
        return self.spoil(self.layer(x))


def spoilt(spoil: Callable[[Tensor], Tensor]) -> Rival:
    return Rival("spoilt", lambda network, training: Spoilt(frozen(network, training), spoil))


@pytest.mark.parametrize(("preset", "gmac"), [("casia-b", 25.8), ("oumvlp", 29.4), ("gait3d", 29.4)])
def test_dense_arithmetic_of_thirty_frames(preset: str, gmac: float) -> None:
    config = PRESETS[preset]
    assert round((flops.macs(config, [30]) + flops.classifier_macs(config)) / 1e9, 1) == gmac


@pytest.mark.parametrize("preset", workloads.OPERATOR_PRESETS)
def test_torch_counts_the_same_arithmetic(preset: str) -> None:
    model = narrow_model(preset).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        PlainHSTL(model)(walkers(7)[None])
    assert counter.get_total_flops() == 2 * flops.macs(model.config, [7])


def test_torch_counts_the_same_arithmetic_of_training() -> None:
    model = narrow_model("casia-b").train()
    config = model.config
    with FlopCounterMode(display=False) as counter:
        embeddings, logits = PlainHSTL(model)(torch.stack([walkers(7), walkers(7, seed=1)]))
        (embeddings.sum() + logits.sum()).backward()
    expected = 2 * sum(flops.training_macs(layer) for layer in flops.layers(config, 7))
    assert counter.get_total_flops() == 2 * (expected + 2 * 3 * flops.classifier_macs(config))


def counted(t: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """Products of one region's convolution of one channel and of both its gradients: with ones everywhere, results
    are counts. The columns beside the map are part of it, as in the native code."""
    x = torch.ones(1, 1, t, h, w + 2, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(1, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    y = F.conv3d(x, weight, padding=(1, 1, 0))
    y.sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    return y.sum(), x.grad.sum(), weight.grad.sum()


@pytest.mark.parametrize("t", [3, 4, 7])
def test_direct_arithmetic_is_that_of_taps_inside_regions_and_sequences(t: int) -> None:
    config = narrow_config("oumvlp", 16)
    for layer in flops.layers(config, t):
        if layer.kind == "arme":
            regions = [counted(layer.frames, rows, layer.columns) for rows in layer.split]
            for pass_ in zip(*regions, strict=True):
                assert layer.direct == layer.c_in * layer.c_out * sum(pass_)
        else:
            assert layer.direct == layer.macs


def test_direct_arithmetic_of_the_published_layers() -> None:
    convolutions = [layer for _, layer in workloads.operator_layers() if layer.kind == "arme"]
    shares = [layer.direct / layer.macs for layer in convolutions]
    assert 0.8 < min(shares) < 0.85
    assert 0.96 < max(shares) < 0.98


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("source", workloads.SOURCES)
def test_every_map_is_zero_outside_its_support(preset: str, source: str) -> None:
    model = narrow_model(preset).eval()
    (clip,) = workloads.embedding("casia-b", (7,), source).inputs
    maps = workloads.feature_maps(model, clip)
    for name, support in executed.supports(model.config, clip).items():
        with torch.no_grad():
            y = PlainLayer(model.get_submodule(name))(maps[name])
        for x, inside in ((maps[name], support.x), (y, support.y)):
            assert x.shape[2:] == inside.shape[1:]
            assert not x.abs().amax(1)[~inside].any()
            assert x.abs().amax(1)[inside].bool().float().mean() > 0.99


def arme_layer(**sizes: Any) -> flops.Layer:
    """A convolution of 2 channels to 3, of 5 frames of 8 + 4 rows and 6 columns unless said otherwise."""
    layer = flops.Layer("stages.0.0", "arme", 2, 3, (8, 4), 5, 12, 6, 0, 0, 0)._replace(**sizes)
    positions = layer.frames * layer.rows * layer.columns
    return layer._replace(macs=27 * 6 * positions, direct=20 * 6 * positions)


@pytest.fixture
def tiles_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution but the first is computed in Winograd tiles of five frames."""
    monkeypatch.setattr(executed, "tile_frames", lambda layer: 0 if layer.c_in == 1 else 5)


@pytest.mark.usefixtures("tiles_of_five")
def test_executed_arithmetic_is_that_of_tiles_that_hold_a_position_of_the_support() -> None:
    layer = arme_layer()
    x, y = torch.zeros(2, 1, 5, 12, 6, dtype=torch.bool)
    x[0, 0, 0, 0] = True
    y[0, 0, 0, :2] = y[0, 4, 7, 3] = True  # one tile of 4 x 4
    y[0, 0, 8, 4] = y[0, 0, 9, 3] = True  # one tile of the second region, which begins at column 3
    dense, direct, winograd, inside, executed_ = executed.of_layer(layer, Support(x, y))
    assert (dense, direct) == (layer.macs, layer.direct)
    assert winograd == 6 * 36 * 7 * (2 + 1) * 2
    assert inside == 6 * 27 * 5
    assert executed_ == 6 * 36 * 7 * 3
    training = executed.of_training(layer, Support(x, y))
    assert (training.dense, training.direct, training.winograd) == (3 * dense, 3 * direct, 3 * winograd)
    assert training.inside == 6 * 27 * (5 + 1 + 5)
    assert training.executed == 6 * 36 * 7 * (3 + 1 + 3)


@pytest.mark.parametrize(
    ("columns", "tiles"),
    [([], 0), ([0, 3], 1), ([1, 4], 1), ([3, 4, 7], 2), ([0, 5, 9, 10], 3), ([10], 1), (range(11), 3)],
)
def test_tiles_begin_at_the_first_column_of_the_support(columns: Sequence[int], tiles: int) -> None:
    support = torch.zeros(1, 2, 5, 11, dtype=torch.bool)
    for i, column in enumerate(columns):
        support[0, i % 2, i % 4, column] = True
    assert executed.tiles(support, [5], frames=2) == tiles


@pytest.mark.usefixtures("tiles_of_five")
def test_the_first_layer_is_direct_and_needs_no_data_gradient() -> None:
    layer = arme_layer(name="stem.0", c_in=1, c_out=6)
    y = torch.zeros(1, 5, 12, 6, dtype=torch.bool)
    y[0, 0, 0, :2] = True
    assert executed.of_layer(layer, Support(y, y)).executed == 6 * 27 * 2
    assert executed.of_layer(layer, Support(~y[:0], ~y)).executed == layer.direct
    assert executed.of_training(layer, Support(y, y)).executed == 2 * 6 * 27 * 2


@pytest.mark.usefixtures("tiles_of_five")
def test_a_layer_by_itself_executes_whole_maps() -> None:
    products = executed.of_layer(arme_layer())
    assert products.executed == products.winograd
    assert products.inside is None
    pooling = flops.layers(PRESETS["casia-b"], 30)[1]
    assert set(executed.of_layer(pooling)) == {pooling.macs}
    assert set(executed.of_training(pooling)) == {3 * pooling.macs}


def test_the_algorithm_in_force_is_what_is_counted() -> None:
    layer = flops.layers(PRESETS["casia-b"], 30)[2]
    with use_algorithm("direct"):
        assert executed.tile_frames(layer) == executed.DIRECT
        assert executed.of_layer(layer).executed == layer.direct
    if _native.cpu() is None:
        pytest.skip(_native.cpu_error())
    with use_algorithm("winograd"):
        assert executed.tile_frames(layer) in executed.TILES
        assert executed.of_layer(layer).executed < layer.direct / 2


@pytest.mark.parametrize(("frames", "tile"), [(30, 5), (10, 5), (4, 4), (3, 4), (2, 2), (8, 4)])
def test_tiles_have_as_few_products_as_they_can(frames: int, tile: int) -> None:
    assert executed.fewest_products(arme_layer(frames=frames)) == tile


@pytest.mark.usefixtures("tiles_of_five")
def test_arithmetic_of_a_network_is_that_of_its_layers_and_clips() -> None:
    config = PRESETS["casia-b"]
    clips = [workloads.embedding("casia-b", (t,)).inputs[0] for t in (12, 30)]
    each = [executed.embedding(config, [clip]) for clip in clips]
    both = executed.embedding(config, clips)
    assert tuple(both) == tuple(a + b for a, b in zip(*each, strict=True))
    assert both.dense == flops.macs(config, [12, 30])
    assert both.inside is not None
    assert both.dense > both.direct > both.inside > both.winograd > both.executed
    assert executed.total([both, executed.of_layer(arme_layer())]).inside is None


def test_walkers_have_a_smaller_support_than_people() -> None:
    for preset in ("casia-b", "oumvlp", "gait3d"):
        people, walkers = (workloads.embedding(preset, source=source).products for source in workloads.SOURCES)
        assert people.dense == walkers.dense
        assert people.executed > walkers.executed


@pytest.mark.parametrize("preset", workloads.OPERATOR_PRESETS)
def test_layers_are_those_of_the_network(preset: str) -> None:
    model = narrow_model(preset).eval()
    maps = workloads.feature_maps(model, walkers(7))
    layers = {layer.name: layer for layer in flops.layers(narrow_config(preset), 7) if layer.kind != "head"}
    assert maps.keys() == layers.keys()
    for name, layer in layers.items():
        assert maps[name].shape == (1, layer.c_in, layer.frames, layer.rows, layer.columns)
        with torch.no_grad():
            y = model.get_submodule(name)(maps[name])
        parameters = sum(p.numel() for p in model.get_submodule(name).parameters())
        assert y.shape[1] == layer.c_out
        assert layer.bytes == 4 * (maps[name].numel() + y.numel() + parameters)


def test_every_operator_and_width_is_measured() -> None:
    measured = {(layer.kind, layer.c_in, layer.c_out) for _, layer in workloads.operator_widths()}
    widths = {(c_in, c_out) for kind, c_in, c_out in measured if kind == "arme"}
    assert widths == {(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)}
    assert {kind for kind, _, _ in measured} == {"arme", "astp", "strip_pool", "fta"}
    assert len(workloads.operator_layers()) == len({layer[1:] for _, layer in workloads.operator_layers()})


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_the_truth_is_the_golden_data(preset: str) -> None:
    golden = recipe.load(preset)
    model = recipe.model(preset).eval()
    lengths = (3, 5)
    clips = [torch.tensor(golden["silhouettes"][0, :t]) for t in lengths]
    embeddings = truth(workloads.embedding(preset)._replace(network=model, inputs=clips)).outputs[0]
    for row, t in zip(embeddings, lengths, strict=True):
        embedding = torch.tensor(golden[f"eval_embeddings_T{t}"]).view(row.shape).double()
        assert (row - embedding).abs().max() <= 2e-6 * embedding.abs().max()


def test_a_training_step_of_ours_gives_the_truth() -> None:
    workload = workloads.training_step("casia-b")._replace(
        network=narrow_model("casia-b", dtype=torch.float64, divisor=8)
    )
    workload = workload._replace(inputs=[workload.inputs[0][:, :6], workload.inputs[1]])
    with use_backend("cpu"):
        answer = workload.step(OURSELVES.prepare(workload.network, True), workload.inputs)
    assert len(answer.gradients) == len(list(workload.network.parameters()))
    assert errors(answer, truth(workload)).fault(Bounds(1e-8, 1e-6)) is None


@pytest.mark.parametrize("source", workloads.SOURCES)
def test_silhouettes_are_real_or_rendered_people(source: str) -> None:
    clips = workloads.embedding("casia-b", workloads.RAGGED, source).inputs
    assert [tuple(clip.shape) for clip in clips] == [(t, 64, 44) for t in workloads.RAGGED]
    for clip in clips:
        assert clip.dtype == torch.uint8
        assert 0.15 < (clip > 0).float().mean() < 0.6
        assert (clip[1:] != clip[:-1]).any((1, 2)).all()
        assert not torch.equal(clip[:12], clips[0]) or clip is clips[0]


def test_silhouettes_of_nobody_are_refused() -> None:
    with pytest.raises(ValueError, match="silhouettes must be one of people, walkers, got 'wlakers'"):
        workloads.embedding("casia-b", source="wlakers")


def test_a_gallery_has_as_many_frames_in_clips_of_30(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (len(workloads.MANY), min(workloads.MANY), max(workloads.MANY)) == (64, 15, 120)
    assert sum(workloads.MANY) % workloads.FRAMES == 0
    monkeypatch.setattr(workloads, "MANY", (3, 6, 6, 4, 3, 3, 5, 6, 4, 20))
    workload = workloads.gallery("casia-b", PEOPLE)
    ours, in_clips = workload.rivals
    assert (ours.name, ours.given, in_clips.name) == (OURS, None, IN_CLIPS)
    assert in_clips.given is not None
    assert [len(clip) for clip in in_clips.given] == [30, 30]
    assert [len(clip) for clip in workload.inputs] == list(workloads.MANY)
    assert (workload.clips, workload.frames) == (10, 60)
    assert workload.name == "casia-b, 10 of 3 to 20 frames, people"


def test_of_a_gallery_some_sequences_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [walkers(t) for t in (3, 4, 5)]
    monkeypatch.setattr(workloads, "MANY", (30,))
    workload = workloads.gallery("casia-b", PEOPLE)._replace(network=narrow_model("casia-b"), inputs=clips * 9)
    answer = workload.step(OURSELVES.prepare(workload.network, False), workload.inputs)
    assert answer.outputs[0].shape[0] == 2
    assert errors(answer, truth(workload)).fault(Bounds(5e-5)) is None
    spoilt_inputs = [*clips * 8, clips[1], *clips[1:]]  # the 25th, which is judged, is another
    wrong = workload.step(OURSELVES.prepare(workload.network, False), spoilt_inputs)
    assert errors(wrong, truth(workload)).fault(Bounds(5e-5)) is not None


def test_a_rival_with_inputs_of_its_own_has_a_truth_of_its_own() -> None:
    seen: list[float] = []

    def note(y: Tensor) -> Tensor:
        seen.append(float(y.norm()))
        return y

    workload, other = small_workload(EAGER), torch.randn(1, 4, 3, 8, 6)
    rows = compared(workload._replace(rivals=(EAGER, spoilt(note)._replace(given=(other,)))))
    assert [(row.fault, len(row.seconds)) for row in rows] == [(None, 2), (None, 2)]
    expected = float(truth(workload._replace(inputs=[other])).outputs[0].norm())
    assert seen == pytest.approx([expected] * 4, rel=1e-4)


def test_one_thread_is_one_thread_of_the_same() -> None:
    threads: list[int] = []

    def note(y: Tensor) -> Tensor:
        threads.append(torch.get_num_threads())
        return y

    all_, one = against_one_thread()
    assert (all_.name, one.name) == (OURS, ONE_THREAD)
    workload = small_workload(*(r._replace(prepare=spoilt(note).prepare) for r in (all_, one)))._replace(threads=2)
    before = torch.get_num_threads()
    assert [row.fault for row in compared(workload)] == [None, None]
    assert threads == [2, 1] * 4
    assert torch.get_num_threads() == before


def test_clips_given_are_given_to_one_rival() -> None:
    clip = walkers(3)
    ours, other = against_clips([clip])
    assert ours.given is None
    assert other.given == (clip,)
    assert workloads.two_threads("casia-b", WALKERS).threads == 2


def test_what_is_timed_is_what_users_run() -> None:
    """The network still knows its layers for its own, which is when it records them and leaves the background out."""
    seen: list[bool] = []
    finish = RecordedMaps.finish

    def step(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
        assert isinstance(network, HSTL)
        seen.append(network._is_made_of_own_layers())
        assert RecordedMaps.finish is not finish
        return Answer([network.embed(inputs)])

    workload = workloads.embedding("casia-b", (3,))._replace(network=narrow_model("casia-b", divisor=8), step=step)
    divide.divide(workload, Prepared(), rounds=1)
    assert seen == [True, True]
    assert RecordedMaps.finish is finish


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_our_time_is_divided_among_all_layers(preset: str) -> None:
    model = narrow_model(preset)
    workload = workloads.embedding(preset, (6,))._replace(network=model, divided=True)
    prepared = Prepared()
    division = divide.divide(workload, prepared, rounds=2)
    layers = flops.layers(model.config, 6)
    assert set(division.parts) == {*divide.part_names(model, 6).values(), divide.REST}
    assert len(division.parts) == sum(layer.kind == "arme" for layer in layers) + 5
    assert all(seconds > 0 for seconds in division.parts.values())
    assert sum(division.parts.values()) == pytest.approx(division.total)  # medians of two rounds are means
    supports = executed.supports(model.config, workload.inputs[0])
    flop = sum(2 * executed.of_layer(layer, supports.get(layer.name)).executed for layer in layers)
    assert sum(count or 0 for count in division.executed_flop.values()) == flop
    assert division.executed_flop["strips"] is None
    parts = json.loads(json.dumps(division.described()))["parts"]
    assert [part["name"] for part in parts] == list(division.parts)
    assert "stage 2, 8-16" in division.parts


def test_the_gradient_that_is_sent_back_avoids_the_kink() -> None:
    workload = workloads.operator_training(*workloads.operator_widths()[0])
    y, direction = truth(workload).outputs[0], workload.inputs[1]
    near, far = y.abs() < 5e-6 * y.abs().max(), y.abs() > 5e-5 * y.abs().max()
    assert near.any()
    assert not direction[near].any()
    assert (direction[far] != 0).float().mean() > 0.99


def test_rivals_take_turns() -> None:
    order: list[str] = []
    seconds = take_turns({name: functools.partial(order.append, name) for name in "ABC"}, rounds=3)
    assert "".join(order) == "ABCABCABC"
    assert {name: len(values) for name, values in seconds.items()} == {"A": 3, "B": 3, "C": 3}


def test_a_series_is_its_median_and_quartiles() -> None:
    assert interleave.summarise([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0, 1.0, 5)
    assert interleave.summarise([7.0]) == (7.0, 7.0, 7.0, 7.0, 1)


def test_rounds_fill_the_time_within_their_limits() -> None:
    assert interleave.rounds_within(10, 0.5, fewest=5, most=50) == 20
    assert interleave.rounds_within(10, 60, fewest=5, most=50) == 5
    assert interleave.rounds_within(10, 0, fewest=5, most=50) == 50


@pytest.mark.parametrize("training", [False, True])
def test_right_answers_are_timed(training: bool) -> None:
    rows = compared(small_workload(EAGER, OURSELVES, training=training))
    assert [(row.rival, row.fault, len(row.seconds)) for row in rows] == [("eager", None, 2), (OURS, None, 2)]
    for row in rows:
        assert row.errors is not None
        assert 0 < row.errors.output < 1e-6
        assert (row.errors.gradient is not None) == training


@pytest.mark.parametrize(
    ("spoil", "training", "word"),
    [
        (lambda y: y + 1e-4 * y.abs().max(), False, "output"),
        (lambda y: y.where(y != y.max(), torch.nan), False, "output"),
        (lambda y: y[..., :-1], False, "output"),
        (lambda y: y.bfloat16().float(), False, "output"),
        (lambda y: 1.001 * y - 0.001 * y.detach(), True, "gradient"),
    ],
    ids=["off", "nan", "shape", "bfloat16", "gradient"],
)
def test_a_wrong_answer_is_not_timed(spoil: Callable[[Tensor], Tensor], training: bool, word: str) -> None:
    eager, wrong = compared(small_workload(EAGER, spoilt(spoil), training=training))
    assert len(eager.seconds) == 2
    assert wrong.seconds == ()
    assert wrong.fault is not None
    assert word in wrong.fault


class Broken(nn.Module):
    """A layer that raises after some calls."""

    def __init__(self, layer: nn.Module, calls: int) -> None:
        super().__init__()
        self.layer = layer
        self.left = calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of luck\n  in /some/secret/place.py")
        y: Tensor = self.layer(x)
        return y


@pytest.mark.parametrize("calls", [0, 1, 3], ids=["first", "second", "in a round"])
def test_a_rival_that_raises_does_not_stop_the_others(calls: int) -> None:
    broken = Rival("broken", lambda network, training: Broken(frozen(network, training), calls))
    rows = compared(small_workload(broken, OURSELVES))
    assert rows[0].fault == "raised RuntimeError: out of luck in place.py"
    assert rows[0].seconds == ()
    assert len(rows[1].seconds) == 2


def test_a_rival_that_cannot_be_prepared_does_not_stop_the_others() -> None:
    def fail(network: nn.Module, training: bool) -> nn.Module:
        raise KeyError("nothing here")

    rows = compared(small_workload(Rival("failing", fail), OURSELVES))
    assert rows[0].fault == "raised KeyError: 'nothing here'"
    assert len(rows[1].seconds) == 2


@pytest.mark.parametrize(
    "spoil",
    [lambda y: None, lambda y: (y, y), lambda y: y.to("meta"), lambda y: y.numpy()],
    ids=["None", "tuple", "device", "array"],
)
def test_an_answer_that_cannot_be_judged_does_not_stop_the_others(spoil: Callable[[Tensor], Any]) -> None:
    rows = compared(small_workload(spoilt(spoil), OURSELVES))
    assert rows[0].fault is not None
    assert rows[0].fault.startswith("raised ")
    assert rows[0].seconds == ()
    assert len(rows[1].seconds) == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no /home/jo hn/x.py or /tmp/a/b.c", "no x.py or b.c"),
        (r"File 'C:\\Users\\jo hn\\x.py'", "File 'x.py'"),
        (r"C:\Users\john\x.py: D:/a/b.cpp", "x.py: b.cpp"),
        ("a: b or c, 3 / 4", "a: b or c, 3 / 4"),
    ],
)
def test_reasons_are_without_folders(text: str, shown: str) -> None:
    assert machine.anonymous(text) == shown


def test_errors_are_judged_by_a_rivals_type() -> None:
    rounded = spoilt(lambda y: y.bfloat16().float())
    narrow, wide = compared(small_workload(rounded._replace(name="narrow", dtype="bfloat16"), rounded))
    assert narrow.fault is None
    assert narrow.bounds == Bounds(1e-2)
    assert len(narrow.seconds) == 2
    assert wide.fault is not None


def test_a_network_is_prepared_once_for_workloads_that_share_it() -> None:
    made: list[int] = []

    def make(network: nn.Module, training: bool) -> nn.Module:
        made.append(torch.get_num_threads())
        return frozen(network, training)

    workload, prepared = small_workload(Rival("counted", make)), Prepared()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for threads in (None, 2, 1, 1):
            compare(workload._replace(threads=threads), PROBES, take_turns, prepared)
        assert made == [2, 1]
        assert torch.get_num_threads() == 2
        compare(small_workload(*workload.rivals), PROBES, take_turns, prepared)
        assert made == [2, 1, 2]
    finally:
        torch.set_num_threads(before)


def test_long_rounds_are_fewer() -> None:
    assert [FULL.rounds(seconds) for seconds in (0.001, 0.2, 2.0, 10.0, 100.0)] == [25, 10, 5, 3, 3]


def test_missing_gradients_are_wrong() -> None:
    expected = Answer([torch.ones(3)], [torch.ones(2)])
    assert errors(Answer([torch.ones(3)]), expected).fault(Bounds(1.0, 1.0)) is not None


def test_a_rival_that_cannot_run_says_why() -> None:
    def refuse(network: nn.Module, training: bool) -> nn.Module:
        raise Unavailable("it is not installed")

    rows = compared(small_workload(Rival("absent", refuse), OURSELVES))
    assert rows[0] == Row("absent", unavailable="it is not installed")
    assert len(rows[1].seconds) == 2


def test_feature_maps_come_in_a_rivals_own_layout() -> None:
    x, clip = torch.randn(1, 4, 3, 5, 6), torch.zeros(3, 64, 44, dtype=torch.uint8)
    moved, same = arranged([x, clip], OURSELVES.layout)
    assert moved.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(moved, x)
    assert same is clip


@pytest.mark.parametrize("name", ["torch.compile", "torch.compile bf16"])
def test_a_compiled_network_is_built_from_plain_torch(name: str) -> None:
    model = narrow_model("casia-b")
    (rival,) = named(name)
    with torch._inductor.config.patch(freezing=False):
        network = rival.prepare(model, False)
        assert torch._inductor.config.freezing
    assert isinstance(network, PlainHSTL) == (rival.dtype == "float32")
    assert any(isinstance(module, PlainHSTL) for module in network.modules())
    assert not any(isinstance(module, HSTL) for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())


def test_channels_last_reaches_weights_and_maps() -> None:
    (rival,) = named("eager channels_last_3d")
    model = narrow_model("casia-b")
    network = rival.prepare(model, False)
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
    found = errors(workload.step(network, workload.inputs), truth(workload))
    assert len(seen) == 11
    assert all(seen)
    assert found.fault(workload.bounds["float32"]) is None


def test_bfloat16_answers_come_back_in_float32() -> None:
    (rival,) = named("eager bf16 autocast")
    workload = workloads.embedding("casia-b", (7,))._replace(network=narrow_model("casia-b"), rivals=(rival,))
    (row,) = compared(workload)
    if row.unavailable:
        pytest.skip(row.unavailable)
    assert row.fault is None
    assert row.errors is not None
    assert row.errors.output > 1e-4
    for training in (False, True):
        embeddings, logits = rival.prepare(workload.network, training)(torch.stack([workload.inputs[0]] * 2))
        assert embeddings.dtype == torch.float32
        assert logits.dtype == torch.float32 if training else logits is None


@functools.cache
def exported_model() -> HSTL:
    return narrow_model("gait3d", divisor=8)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino bf16"])
def test_a_runtime_gives_the_embeddings_of_any_shape(name: str) -> None:
    (rival,) = named(name)
    workload = workloads.embedding("gait3d", (4, 4))._replace(network=exported_model(), rivals=(rival,))
    (row,) = compared(workload)
    if row.unavailable:
        pytest.skip(row.unavailable)
    assert row.fault is None
    network = rival.prepare(workload.network, False)
    first = workload.step(network, workload.inputs).outputs[0]
    assert isinstance(network, runtimes.Runtime)
    assert network.engines.keys() == {(2, 4, 64, 44)}
    network.release()
    assert torch.equal(first, workload.step(network, workload.inputs).outputs[0])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino bf16"])
def test_a_runtime_that_is_absent_or_asked_to_train_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (rival,) = named(name)
    with pytest.raises(Unavailable, match="evaluation only"):
        rival.prepare(narrow_model("casia-b"), True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(Unavailable, match=r"^onnx is not installed \(extra \[peers\]\)$"):
        rival.prepare(narrow_model("casia-b"), False)


def test_clips_of_one_length_go_together_and_come_back_in_order() -> None:
    workload = workloads.embedding("casia-b", (5, 4, 5))._replace(network=narrow_model("casia-b"))
    network, sizes = EAGER.prepare(workload.network, False), []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[:2]))
    embeddings = workload.step(network, workload.inputs).outputs[0]
    assert sizes == [(2, 5), (1, 4)]
    for clip, embedding in zip(workload.inputs, embeddings, strict=True):
        assert distance(network(clip[None])[0][0], embedding) <= rounding(torch.float32, NETWORK)


def test_a_workload_of_a_network_names_its_work() -> None:
    workload = workloads.embedding("casia-b", (12, 30, 57))
    assert (workload.name, workload.group) == ("casia-b, 12 + 30 + 57 frames, people", "throughput")
    assert (workload.clips, workload.frames, workload.silhouettes) == (3, 99, PEOPLE)
    assert workloads.embedding("casia-b", (30,) * 8, WALKERS).name == "casia-b, 8 x 30 frames, walkers"
    step = workloads.training_step("casia-b", WALKERS)
    assert (step.clips, step.frames, step.rivals, step.silhouettes) == (4, 120, NETWORKS, WALKERS)
    assert step.products.inside is not None
    assert 0.5 < step.products.inside / step.products.dense < 0.8


class Hungry(nn.Module):
    """Takes 64 MiB for a moment."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y + torch.ones(2**24)[0] - 1


@pytest.mark.skipif(not memory.PEAK_RESET.exists(), reason="needs Linux")
def test_memory_is_what_a_step_takes() -> None:
    hungry = Rival("hungry", lambda network, training: Hungry(frozen(network, training)))
    assert 60 < memory.of_step(small_workload(), hungry) / 2**20 < 80
    assert memory.of_step(small_workload(), EAGER) / 2**20 < 16


@pytest.mark.skipif(not memory.PEAK_RESET.exists(), reason="needs Linux")
def test_memory_is_measured_in_another_process() -> None:
    peak = memory.peak(("embedding", "casia-b", "walkers", "3"), "eager")
    assert peak.missing is None
    assert peak.bytes is not None
    assert peak.bytes > 4 * (64 + 64) * 3 * 64 * 44  # stage 2's input and output, at least
    absent = memory.peak(("embedding", "nowhere", "people", "3"), "eager")
    assert absent.bytes is None
    assert absent.missing is not None
    assert "nowhere" in absent.missing


@pytest.mark.parametrize(
    ("recipe", "workload"),
    [
        (("embedding", "casia-b", "people", "12", "30"), workloads.embedding("casia-b", (12, 30))),
        (("training_step", "casia-b", "walkers"), workloads.training_step("casia-b", WALKERS)),
    ],
    ids=["embedding", "training step"],
)
def test_memory_knows_the_workloads(recipe: tuple[str, ...], workload: Workload) -> None:
    found = memory.workload_of(recipe)
    assert (found.name, found.training) == (workload.name, workload.training)
    assert all(map(torch.equal, found.inputs, workload.inputs))


def test_the_table_shows_times_errors_and_faults() -> None:
    def refuse(network: nn.Module, training: bool) -> nn.Module:
        raise Unavailable("it is not installed")

    broken = Rival("broken", lambda network, training: Broken(frozen(network, training), 0))
    workload = small_workload(EAGER, spoilt(lambda y: 2 * y), broken, Rival("absent", refuse), OURSELVES)
    seconds = {"eager": (0.002, 0.004, 0.003), OURS: (0.001,) * 3}
    rows = [row._replace(seconds=seconds.get(row.rival, ())) for row in compared(workload)]
    described = describe(workload, rows, OURS, {"eager": Peak(5 * 2**20)})
    eager, wrong, failed, absent, ours = list(table.lines([described], {}))[-5:]
    assert eager.split()[:6] == ["eager", "3.00", "2.50", "-", "3.50", "x3.00"]
    assert eager.split()[-1] == "5"
    assert "WRONG, not timed: output is off" in wrong
    assert "FAILED, not timed: raised RuntimeError: out of luck" in failed
    assert "unavailable: it is not installed" in absent
    assert "x1.00" in ours
    assert [line.split(": ")[1] for line in table.faults([described])] == ["spoilt", "broken"]
    line = table.progress(described, OURS, 7.0)
    assert "ours 1.0 ms" in line
    assert "best other 3.0 ms (eager)" in line
    assert "FAULT of spoilt FAULT of broken [7 s]" in line


def test_the_machine_is_named_and_its_best_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIZE", 64)
    monkeypatch.setattr(machine, "COPIED", 1000)
    description = json.loads(json.dumps(machine.description()))
    assert {"cpu", "cores", "threads", "torch", "native_cpu", "hstl_fast", "peers"} <= description.keys()
    rates = machine.peaks(repeats=1)
    assert rates.keys() == {"float32_gflop_per_second", "bfloat16_gflop_per_second", "copy_gbyte_per_second"}
    assert all(rate is None or rate > 0 for rate in rates.values())
    assert rates["float32_gflop_per_second"] is not None
    assert machine.best({"a": 1.0, "b": None, "c": 5.0}, {"a": 2.0, "b": None, "c": 4.0}) == {"a": 2, "b": None, "c": 5}


Run = tuple[Path, "subprocess.CompletedProcess[str]"]
BENCHMARK = """
from benchmarks.rivals import OURS, Rival
from tests.test_benchmarks import EAGER, OURSELVES, Broken, small_workload, spoilt

def test_right(measure):
    measure(small_workload(EAGER, OURSELVES))

def test_wrong_rivals(measure):
    broken = Rival("broken", lambda network, training: Broken(network, 1))
    measure(small_workload(spoilt(lambda y: y * 1.01), broken, OURSELVES))

def test_ours_is_wrong(measure):
    measure(small_workload(EAGER, spoilt(lambda y: y * 1.01)._replace(name=OURS)))
"""


@pytest.fixture(scope="module")
def benchmarks_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder and the run of the tests above."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "conftest.py").write_text('pytest_plugins = ["benchmarks.conftest"]\n')
    (folder / "test_small.py").write_text(BENCHMARK)
    command = [sys.executable, "-m", "pytest", str(folder), "--benchmark-only", "--benchmark-json=results.json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [*command, f"--rootdir={folder}"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return folder, run


def test_only_a_fault_of_ours_fails_a_run(benchmarks_run: Run) -> None:
    _, run = benchmarks_run
    assert run.returncode == 1
    assert "1 failed, 2 passed" in run.stdout, run.stdout + run.stderr
    assert f"{OURS}: output is off" in run.stdout
    assert "1/3  arme forward: small: ours" in run.stdout
    assert "WRONG, not timed" in run.stdout
    assert "arme forward, small: spoilt: output is off" in run.stdout


def test_a_run_writes_everything_to_one_file(
    benchmarks_run: Run,
) -> None:
    results = json.loads((benchmarks_run[0] / "results.json").read_text())
    assert results["peaks"].keys() == {
        "float32_gflop_per_second",
        "bfloat16_gflop_per_second",
        "copy_gbyte_per_second",
    }
    assert results["machine_info"]["hstl_fast"]["threads"] >= 1
    right, wrong = (entry["extra_info"]["rivals"] for entry in results["benchmarks"])
    for rival in (right["eager"], right[OURS], wrong[OURS]):
        assert len(rival["seconds"]) == rival["rounds"] >= 5
        assert rival["median"] > 0
        assert rival["errors"]["output"] < 1e-6
        assert rival["dtype"] == "float32"
    assert right["eager"]["ours_is_times_faster"] > 0
    assert wrong["spoilt"]["fault"].startswith("output is off")
    assert wrong["broken"]["fault"] == "raised RuntimeError: out of luck in place.py"
    assert not {"median", "seconds"} & (wrong["spoilt"].keys() | wrong["broken"].keys())
    small = results["benchmarks"][0]
    assert small["stats"]["rounds"] == right[OURS]["rounds"]
    described = small["extra_info"]
    names = ("dense", "direct", "winograd", "inside", "executed")
    assert [described[f"{name}_flop"] for name in names] == [2000, 1800, 240, None, 220]
    assert (described["clips"], described["threads"], described["scaling"]) == (1, torch.get_num_threads(), None)


def test_a_results_file_names_no_folder_and_nobody(
    benchmarks_run: Run,
) -> None:
    results = json.loads((benchmarks_run[0] / "results.json").read_text())
    assert results["machine_info"].keys() == {"cpu", "hstl_fast"}
    assert "project" not in results["commit_info"]
    text = json.dumps(results)
    for private in (str(benchmarks_run[0]), str(REPOSITORY), str(Path.home()), f"/{getpass.getuser()}/"):
        assert private not in text
    assert not any("data" in entry["stats"] for entry in results["benchmarks"])


def test_quick_keeps_each_operator() -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--quick", "--collect-only", "-q"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    chosen = [line for line in run.stdout.splitlines() if "::" in line]
    assert len(chosen) == 6
    assert any("test_latency[casia-b-people]" in line for line in chosen)
    assert all(
        any(f"casia-b-{name}]" in line for line in chosen) for name in ("stages.0.1", "pools.1", "fta", "strips")
    )
