"""Number formats, compilation and evaluation in whole trainings."""

import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast import HSTL
from hstl_fast.progress import silent
from hstl_fast.training import TrainingConfig, TrainingStopped, TrainingWarning, Watcher, fit, fitting, folder
from hstl_fast.training.fitting import run
from tests.training.conftest import Configure
from tests.training.test_stopping import Signalling


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in folder.read_lines(output / "log.jsonl")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_steps_in_bfloat16(configure: Configure, tmp_path: Path) -> None:
    config = configure(
        machine__precision="bfloat16",
        schedule__steps=1000,
        schedule__milestones=(),
        saving__every=500,
        optimizer__lr=1e-3,
    )
    last = fit(config)
    found = losses(tmp_path / "run")
    assert len(found) == 500
    assert all(math.isfinite(loss) for loss in found)
    assert found[-1] < found[0] / 2
    assert {tensor.dtype for tensor in torch.load(last, weights_only=True)["model"].values()} <= {
        torch.float32,
        torch.int64,
    }


def test_bfloat16_computes_in_bfloat16(configure: Configure, tmp_path: Path) -> None:
    fit(configure(output=str(tmp_path / "wide")))
    fit(configure(machine__precision="bfloat16"))
    wide, narrow = losses(tmp_path / "wide"), losses(tmp_path / "run")
    assert wide != narrow
    # Losses of a few steps differ by some roundings to 8 bits.
    assert narrow[0] == pytest.approx(wide[0], rel=0.05)


def test_float16_goes_on_with_its_scaler(configure: Configure, tmp_path: Path) -> None:
    # The first scale is too high for such a loss, so that the first steps are skipped.
    config = configure(machine__precision="float16", loss__triplet=40.0, saving__log_every=1)
    with pytest.warns(TrainingWarning, match="float16 on a CPU is slow"):
        whole = torch.load(fit(replace(config, output=str(tmp_path / "whole"))), weights_only=True)
    assert whole["training"]["scaler"]["scale"] < 2**16
    lines = folder.read_lines(tmp_path / "whole/log.jsonl")
    assert "gradient_norm" not in lines[0]
    assert "gradient_norm" in lines[-1]
    with pytest.warns(TrainingWarning), pytest.raises(TrainingStopped):
        fit(config, watcher=Signalling(signal.SIGTERM, 1))
    with pytest.warns(TrainingWarning):
        again = torch.load(fit(config), weights_only=True)
    assert again["training"]["scaler"] == whole["training"]["scaler"]
    assert all(torch.equal(tensor, whole["model"][name]) for name, tensor in again["model"].items())


@pytest.mark.slow
def test_a_compiled_network(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler traces the network; generating code for what it has found takes minutes.
    compile_with = torch.nn.Module.compile
    compiled: list[torch.nn.Module] = []

    def trace(model: torch.nn.Module) -> None:
        compiled.append(model)
        compile_with(model, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    fit(configure(output=str(tmp_path / "eager"), schedule__steps=2, saving__log_every=1))
    last = fit(configure(machine__compile=True, schedule__steps=2, saving__log_every=1))
    assert [type(model) for model in compiled] == [HSTL]
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
    assert isinstance(HSTL.from_official_checkpoint(last), HSTL)


class Evaluations:
    """Evaluates by counting; it draws random numbers, as an evaluation may."""

    def __init__(self, fails_at: int = 0) -> None:
        self.steps: list[int] = []
        self.fails_at = fails_at

    def __call__(self, model: HSTL, config: TrainingConfig, step: int) -> dict[str, Any]:
        assert not model.training
        torch.rand(3)
        if step == self.fails_at:
            raise ValueError("the test people have gone")
        self.steps.append(step)
        return {"score": float(step)}


def test_evaluations(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The function of that name hides the module.
    monkeypatch.setattr(fitting, "check_evaluation", lambda _: ())
    config = configure(evaluation__every=3)
    evaluations = Evaluations(fails_at=3)
    with pytest.raises(ValueError, match="the test people have gone"):
        run(config, silent, Watcher(), evaluations)
    # Its checkpoint stands before the evaluation, which comes first when the training goes on.
    assert folder.checkpoints_in(tmp_path / "run")[0].name == "step-00000003.pt"
    evaluations.fails_at = 0
    last = run(config, silent, Watcher(), evaluations)
    assert evaluations.steps == [3, 6]
    assert folder.read_lines(tmp_path / "run/evaluation.jsonl") == [{"step": s, "score": float(s)} for s in (3, 6)]
    plain = fit(configure(output=str(tmp_path / "plain")))
    expected = torch.load(plain, weights_only=True)["model"]
    for name, tensor in torch.load(last, weights_only=True)["model"].items():
        assert torch.equal(tensor, expected[name]), name
