"""The benchmarks measure what they say, and refuse to time a wrong answer; no times are judged here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops, interleave, machine, table, workloads
from benchmarks.compare import Effort, Row, compare, describe, take_turns, truth
from benchmarks.gate import Answer, Bounds, errors
from benchmarks.plain import PlainHSTL, frozen
from benchmarks.rivals import OURS, RIVALS, Rival, Unavailable, arranged
from benchmarks.workloads import Workload
from hstl_fast import HSTL, PRESETS, use_backend
from hstl_fast.nn import ARME
from tests.golden import recipe
from tests.networks import narrow_config, narrow_model, walkers

REPOSITORY = Path(__file__).parent.parent
PROBES = Effort(seconds=0.0, fewest=2, most=2)
EAGER, OURSELVES = (next(rival for rival in RIVALS if rival.name == name) for name in ("eager", OURS))


def small_workload(training: bool = False) -> Workload:
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
        bounds=Bounds(1e-5, 1e-4) if training else Bounds(1e-5),
        macs=1000,
        bytes=4000,
    )


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


def test_silhouettes_are_real_people() -> None:
    clips = workloads.embedding("casia-b", workloads.LENGTHS).inputs
    assert [tuple(clip.shape) for clip in clips] == [(t, 64, 44) for t in workloads.LENGTHS]
    for clip in clips:
        assert clip.dtype == torch.uint8
        assert 0.15 < (clip > 0).float().mean() < 0.6
        assert (clip[1:] != clip[:-1]).any((1, 2)).all()


def test_the_gradient_that_is_sent_back_avoids_the_kink() -> None:
    workload = workloads.operator_training(*workloads.operator_widths()[0])
    y, direction = truth(workload).outputs[0], workload.inputs[1]
    near = (y != 0) & (y.abs() < 5e-6 * y.abs().max())
    assert near.any()
    assert not direction[near].any()
    assert (direction != 0).float().mean() > 0.99


def test_rivals_take_turns() -> None:
    order: list[str] = []
    seconds = take_turns({name: partial(order.append, name) for name in "ABC"}, rounds=3)
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
    rows = compare(small_workload(training), (EAGER, OURSELVES), PROBES, take_turns)
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
    eager, wrong = compare(small_workload(training), (EAGER, spoilt(spoil)), PROBES, take_turns)
    assert len(eager.seconds) == 2
    assert wrong.seconds == ()
    assert wrong.fault is not None
    assert word in wrong.fault


def test_missing_gradients_are_wrong() -> None:
    expected = Answer([torch.ones(3)], [torch.ones(2)])
    assert errors(Answer([torch.ones(3)]), expected).fault(Bounds(1.0, 1.0)) is not None


def test_a_rival_that_cannot_run_says_why() -> None:
    def refuse(network: nn.Module, training: bool) -> nn.Module:
        raise Unavailable("it is not installed")

    rows = compare(small_workload(), (Rival("absent", refuse), OURSELVES), PROBES, take_turns)
    assert rows[0] == Row("absent", unavailable="it is not installed")
    assert len(rows[1].seconds) == 2


def test_feature_maps_come_in_a_rivals_own_layout() -> None:
    x, clip = torch.randn(1, 4, 3, 5, 6), torch.zeros(3, 64, 44, dtype=torch.uint8)
    moved, same = arranged([x, clip], OURSELVES.layout)
    assert moved.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(moved, x)
    assert same is clip


def test_a_compiled_network_is_built_from_plain_torch() -> None:
    model = narrow_model("casia-b")
    rival = next(rival for rival in RIVALS if rival.name == "torch.compile")
    with torch._inductor.config.patch(freezing=False):
        network = rival.prepare(model, False)
        assert torch._inductor.config.freezing
    assert isinstance(network, PlainHSTL)
    assert not any(isinstance(module, HSTL) for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())


def test_the_table_shows_times_errors_and_faults() -> None:
    def refuse(network: nn.Module, training: bool) -> nn.Module:
        raise Unavailable("it is not installed")

    workload = small_workload()
    rivals = (EAGER, spoilt(lambda y: 2 * y), Rival("absent", refuse), OURSELVES)
    rows = [
        row._replace(seconds=(0.002, 0.004, 0.003) if row.rival == "eager" else (0.001,) * 3)
        for row in compare(workload, rivals, PROBES, take_turns)
    ]
    rows[1] = rows[1]._replace(seconds=())
    rows[2] = rows[2]._replace(seconds=())
    lines = list(table.lines([describe(workload, rows, OURS)], {}))
    eager, wrong, absent, ours = lines[-4:]
    assert eager.split()[:6] == ["eager", "3.00", "2.50", "-", "3.50", "x3.00"]
    assert "WRONG, not timed" in wrong
    assert "unavailable: it is not installed" in absent
    assert "x1.00" in ours


def test_the_machine_is_named_and_its_best_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIZE", 64)
    monkeypatch.setattr(machine, "COPIED", 1000)
    description = json.loads(json.dumps(machine.description()))
    assert {"cpu", "cores", "threads", "torch", "native_cpu", "hstl_fast"} <= description.keys()
    assert all(rate > 0 for rate in machine.peaks(repeats=1).values())


BENCHMARK = """
from benchmarks import conftest
from tests.test_benchmarks import EAGER, OURSELVES, small_workload, spoilt

def test_right(measure, monkeypatch):
    monkeypatch.setattr(conftest, "RIVALS", (EAGER, OURSELVES))
    measure(small_workload())

def test_wrong_rival(measure, monkeypatch):
    monkeypatch.setattr(conftest, "RIVALS", (spoilt(lambda y: y * 1.01), OURSELVES))
    measure(small_workload())
"""


def test_a_run_writes_everything_to_one_file(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["benchmarks.conftest"]\n')
    (tmp_path / "test_small.py").write_text(BENCHMARK)
    command = [sys.executable, "-m", "pytest", str(tmp_path), "--benchmark-only", "--benchmark-json=results.json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "-q"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed, 1 passed" in run.stdout
    assert "WRONG, not timed" in run.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["peaks"].keys() == {"float32_gflop_per_second", "copy_gbyte_per_second"}
    assert results["machine_info"]["hstl_fast"]["threads"] >= 1
    right, wrong = (entry["extra_info"]["rivals"] for entry in results["benchmarks"])
    for rival in (right["eager"], right[OURS], wrong[OURS]):
        assert len(rival["seconds"]) == rival["rounds"] >= 5
        assert rival["median"] > 0
        assert rival["errors"]["output"] < 1e-6
    assert right["eager"]["ours_is_times_faster"] > 0
    assert wrong["spoilt"]["fault"]
    assert "median" not in wrong["spoilt"]
    assert results["benchmarks"][0]["stats"]["rounds"] == right[OURS]["rounds"]


def test_quick_keeps_each_operator() -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--quick", "--collect-only", "-q"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    chosen = [line for line in run.stdout.splitlines() if "::" in line]
    assert len(chosen) == 5
    assert all(
        any(f"casia-b-{name}]" in line for line in chosen) for name in ("stages.0.1", "pools.1", "fta", "strips")
    )
