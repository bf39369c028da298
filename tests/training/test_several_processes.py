"""Trainings by several processes: they come to what one process comes to with the whole batch."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from hstl_fast.training import TrainingConfig, fit, folder
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.training.conftest import Configure
from tests.training.processes import free_port, training, variables_of_torchrun, wait_for

STEPS, LR, ADAM_EPS = 20, 1e-2, 1e-8


def use_float64() -> None:
    """Let networks compute in float64, where no hinge or maximum answers the last bit with a jump."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def float64() -> Iterator[None]:
    use_float64()
    yield
    torch.set_default_dtype(torch.float32)


def train_in(processes: int, config: TrainingConfig) -> Path:
    """Train in several processes, and return the last checkpoint."""
    port = free_port()
    with ExitStack() as stack:
        started = [
            stack.enter_context(training(config, use_float64, variables_of_torchrun(rank, processes, port)))
            for rank in range(processes)
        ]
        for process in started:
            process.join(120)
            assert process.exitcode == 0
    return folder.checkpoints_in(Path(config.output))[0]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_processes_train_as_one(optimizer: str, configure: Configure, tmp_path: Path) -> None:
    settings = {"schedule__steps": STEPS, "optimizer__name": optimizer, "optimizer__lr": LR}
    one = fit(configure(output=str(tmp_path / "one"), **settings))
    two = train_in(2, configure(machine__devices="auto", **settings))
    bound = STEPS * rounding(torch.float64, NETWORK)
    if optimizer == "adam":
        bound *= LR / ADAM_EPS  # a gradient that is nothing but rounding is divided by hardly more
    expected = torch.load(one, weights_only=True)["model"]
    for name, tensor in torch.load(two, weights_only=True)["model"].items():
        assert distance(tensor, expected[name]) < bound, name
    lines = folder.read_lines(tmp_path / "run/log.jsonl"), folder.read_lines(tmp_path / "one/log.jsonl")
    for ours, other in zip(*lines, strict=True):
        assert ours["step"] == other["step"]
        for loss in ("loss", "triplet", "cross_entropy"):
            assert abs(ours[loss] - other[loss]) < bound * other[loss]


@pytest.mark.slow
def test_a_process_that_dies_does_not_leave_the_other_waiting(configure: Configure, tmp_path: Path) -> None:
    config = configure(machine__devices="auto", schedule__steps=100_000, saving__every=5)
    port, begun = free_port(), folder.checkpoint_path(tmp_path / "run", 5)
    with (
        training(config, variables=variables_of_torchrun(0, 2, port)) as first,
        training(config, variables=variables_of_torchrun(1, 2, port)) as second,
    ):
        wait_for(begun.exists, first)
        second.kill()
        first.join(60)
        assert first.exitcode == 1
    assert folder.checkpoints_in(tmp_path / "run")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them(configure: Configure, tmp_path: Path) -> None:
    settings = {"machine__devices": "auto", "schedule__steps": 60, "saving__every": 100, "saving__log_every": 1}
    whole = torch.load(train_in(2, configure(output=str(tmp_path / "whole"), **settings)), weights_only=True)
    config, port, log = configure(**settings), free_port(), tmp_path / "run/log.jsonl"
    with (
        training(config, use_float64, variables_of_torchrun(0, 2, port)) as first,
        training(config, use_float64, variables_of_torchrun(1, 2, port)) as second,
    ):
        wait_for(lambda: len(folder.read_lines(log)) >= 5, first)
        second.terminate()
        for process in (first, second):
            process.join(60)
            assert process.exitcode == 1
    (stopped,) = folder.checkpoints_in(tmp_path / "run")
    assert 5 <= int(stopped.stem[5:]) < 60
    again = torch.load(train_in(2, config), weights_only=True)
    assert all(torch.equal(tensor, whole["model"][name]) for name, tensor in again["model"].items())
