"""Faults that a training finds in its own steps."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast.models import HSTL, HSTLConfig
from hstl_fast.training import LossConfig, TrainingError, TrainingWarning, fit, fitting, folder
from hstl_fast.training import watch as watching
from hstl_fast.training.log import Log
from hstl_fast.training.module import TrainingModule
from hstl_fast.training.watch import MOST_SKIPPED, Watch, first_fault
from tests.helpers.tiny import silhouettes, tiny_model
from tests.training.conftest import Configure

NAN, INF = float("nan"), float("inf")


def test_stops_before_a_step_that_is_not_finite(configure: Configure, tmp_path: Path) -> None:
    config = configure(optimizer__name="sgd", optimizer__lr=1e30, saving__every=1, saving__log_every=1)
    with pytest.raises(TrainingError) as raised:
        fit(config)
    last = folder.checkpoints_in(tmp_path / "run")[0]
    assert re.search(r"the first layer whose output is not finite is [a-z.0]+ \((ARME|ASTP)\); ", str(raised.value))
    assert str(raised.value).endswith(f"nothing of this step is saved, the last good checkpoint is {last}")
    made = int(last.stem[5:])
    assert str(raised.value).startswith(f"step {made}: the loss")
    assert [line["step"] for line in folder.read_lines(tmp_path / "run/log.jsonl")] == list(range(1, made + 1))
    model = torch.load(last, weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in model.values())


def test_a_first_step_that_is_not_finite(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hstl_fast.training.module.triplet_loss", lambda embeddings, *_: embeddings.sum() * NAN)
    with pytest.raises(TrainingError, match=r"step 0: the loss is nan; .* there is no checkpoint yet"):
        fit(configure())
    assert not folder.checkpoints_in(tmp_path / "run")


def test_running_statistics_that_are_not_finite_are_not_saved(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Log.add

    def spoil_and_add(log: Log, values: Mapping[str, float]) -> None:
        add(log, values)
        [model] = models
        if model.norm.num_batches_tracked == 4:
            model.norm.running_var[1] = INF  # the losses of a training do not depend on it

    models: list[HSTL] = []

    def made(shape: HSTLConfig) -> HSTL:
        models.append(HSTL(shape))
        return models[0]

    monkeypatch.setattr(Log, "add", spoil_and_add)
    monkeypatch.setattr(fitting, "HSTL", made)
    with pytest.raises(TrainingError, match=re.escape("step 4: norm.running_var holds values that are not finite; ")):
        fit(configure())
    assert [path.name for path in folder.checkpoints_in(tmp_path / "run")] == ["step-00000002.pt"]


def test_weights_to_begin_with_that_are_not_finite(configure: Configure, tmp_path: Path) -> None:
    file = fit(configure(schedule__steps=2))
    content = torch.load(file, weights_only=True)
    content["model"]["Bn.running_mean"][0] = NAN
    torch.save(content, start := tmp_path / "start.pt")
    with pytest.raises(ValueError, match=re.escape(f"network.start: {start}: norm.running_mean holds values that are")):
        fit(configure(network__start=str(start), output=str(tmp_path / "other")))
    assert not folder.checkpoints_in(tmp_path / "other")


def fault_of(module: TrainingModule) -> str:
    batch = silhouettes(4), torch.tensor([0, 0, 1, 1])

    def compute() -> None:
        module(*batch)["loss"].backward()

    return first_fault(module, compute)


def test_names_the_layer_whose_output_is_not_finite() -> None:
    module = TrainingModule(tiny_model(), LossConfig())
    with torch.no_grad():
        module.model.fta.bias[0, 0, 0] = NAN
    assert fault_of(module) == "the first layer whose output is not finite is fta (FTA)"


def test_names_the_layer_whose_gradient_is_not_finite() -> None:
    module = TrainingModule(tiny_model(), LossConfig())

    def spoil(_: Any, __: Any, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradient * INF)

    module.model.stages[0][0].register_forward_hook(spoil)
    wanted = "all outputs are finite; the first gradient that is not is that of the output of stages.0.0 (ARME)"
    assert fault_of(module) == wanted


def test_a_fault_that_does_not_come_again() -> None:
    module = TrainingModule(tiny_model(), LossConfig())
    assert fault_of(module) == "computed again layer by layer, all outputs and gradients are finite"
    assert not any(layer._forward_hooks for layer in module.modules())


def test_steps_that_a_scaler_skips() -> None:
    watch = Watch(margin=0.2)
    for _ in range(3):
        for _ in range(MOST_SKIPPED - 1):
            assert watch.fault({"loss": 1.0}, INF, has_scaler=True) is None
        assert watch.fault({"loss": 1.0}, 2.0, has_scaler=True) is None
    faults = [watch.fault({"loss": 1.0}, NAN, has_scaler=True) for _ in range(MOST_SKIPPED)]
    assert faults[-1] == f"the norm of the gradient is nan, {MOST_SKIPPED} times"
    assert watch.fault({"loss": 1.0, "triplet": -INF}, 1.0, has_scaler=True) == "the loss triplet is -inf"
    assert Watch(0.2).fault({"loss": 1.0}, NAN, has_scaler=False) == "the norm of the gradient is nan"


@pytest.mark.parametrize("margin", [0.2, 0.0])
def test_losses_near_the_margin(margin: float) -> None:
    watch = Watch(margin)
    near = [0.1985] * 99 + [0.19] + [0.2015] * 100 + [0.2] * 200
    told = [i for i, loss in enumerate(near) if watch.collapse(loss)]
    assert told == ([199] if margin else [])
    assert Watch(0.2).collapse(None) is None


def test_tells_once_that_the_loss_is_at_the_margin(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_STEPS_NEAR", 3)
    # Embeddings are near one another beside such a margin.
    config = configure(loss__margin=1e4)
    with pytest.warns(TrainingWarning, match="has been at its margin, 10000") as warned:
        fit(config)
    assert len(warned) == 1
    notices = [line for line in folder.read_lines(tmp_path / "run/log.jsonl") if "notice" in line]
    assert [line["step"] for line in notices] == [3]


def test_a_gradient_that_is_finite_has_a_finite_norm() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[2].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert watching.gradient_norm(parameters) == 5
    parameters[2].grad[0] = NAN
    assert math.isnan(watching.gradient_norm(parameters))
