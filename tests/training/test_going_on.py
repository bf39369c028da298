"""Trainings that go on: with damaged checkpoints, with other settings, and with what does not fit."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast.training import TrainingConfig, TrainingError, TrainingWarning, fit, folder
from hstl_fast.training.fitting import _first_difference
from tests.helpers.datasets import write_data_set
from tests.training.conftest import NETWORK, Configure


@pytest.fixture
def begun(configure: Configure) -> TrainingConfig:
    """The configuration of a training that has made four of its six steps."""
    fit(configure(schedule__steps=4))
    return configure(schedule__steps=4)


def six(config: TrainingConfig) -> TrainingConfig:
    return replace(config, schedule=replace(config.schedule, steps=6))


def change_byte(path: Path) -> None:
    """Change a byte of the weights, which torch reads without noticing."""
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["model"]["Head0.fc_bin"].numpy().tobytes()
    content[content.index(weights)] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [change_byte, truncate])
def test_a_damaged_checkpoint(
    damage: Callable[[Path], None], begun: TrainingConfig, configure: Configure, tmp_path: Path
) -> None:
    damage(folder.checkpoint_path(tmp_path / "run", 4))
    with pytest.warns(TrainingWarning, match=r"step-00000004\.pt.*; the checkpoint before it is used"):
        last = fit(begun)
    expected = torch.load(fit(configure(output=str(tmp_path / "whole"), schedule__steps=4)), weights_only=True)
    for name, tensor in torch.load(last, weights_only=True)["model"].items():
        assert torch.equal(tensor, expected["model"][name]), name
    damage(folder.checkpoint_path(tmp_path / "run", 4))
    damage(folder.checkpoint_path(tmp_path / "run", 2))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with (
        pytest.warns(TrainingWarning),
        pytest.raises(TrainingError, match="expected a checkpoint that can be read, got 2 that cannot"),
    ):
        fit(begun)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_other_settings_are_listed_and_take_effect(begun: TrainingConfig, configure: Configure, tmp_path: Path) -> None:
    config = configure(optimizer__lr=0.5, loss__margin=0.3, saving__log_every=1)
    expected = (
        "the training goes on with other settings: loss.margin: 0.2 before, 0.3 now; "
        "optimizer.lr: 0.01 before, 0.5 now; schedule.steps: 4 before, 6 now; saving.log_every: 2 before, 1 now"
    )
    with pytest.warns(TrainingWarning) as warned:
        fit(config)
    assert len(warned) == 1
    assert str(warned[0].message) == f"{folder.checkpoint_path(tmp_path / 'run', 4)}: {expected}"
    assert [line["lr"] for line in folder.read_lines(tmp_path / "run/log.jsonl")] == [0.01, 0.01, 0.05, 0.05]


def test_other_sequences_and_threads_are_listed(
    begun: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_set("opengait", data := tmp_path / "data")
    (tmp_path / "partition.json").write_text(json.dumps({"TRAIN_SET": ["001", "002"], "TEST_SET": ["075"]}))
    shutil.rmtree(next((data / "001").iterdir()))
    elsewhere = replace(begun.data, path=str(data), partition=str(tmp_path / "partition.json"))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.warns(TrainingWarning) as warned:
        fit(replace(six(begun), data=elsewhere))
    listed = rf"; sequences: \d+ \(\w{{8}}\) before, \d+ \(\w{{8}}\) now; threads: {threads} before, {threads + 1} now$"
    assert re.search(listed, str(warned[0].message))


def test_other_people(begun: TrainingConfig, tmp_path: Path) -> None:
    partition = tmp_path / "partition.json"
    partition.write_text(json.dumps({"TRAIN_SET": ["001", "075"], "TEST_SET": ["002"]}))
    config = replace(six(begun), data=replace(begun.data, partition=str(partition)))
    with pytest.raises(TrainingError, match=r"2 \(001, 002\); got 2 \(001, 075\); .*network.new_classifier=true"):
        fit(config)
    elsewhere = replace(config, output=str(tmp_path / "new"), schedule=replace(config.schedule, steps=1))
    start = str(folder.checkpoint_path(tmp_path / "run", 4))
    with pytest.raises(ValueError, match=r"its classifier is for other people"):
        fit(replace(elsewhere, network=replace(config.network, start=start)))
    last = fit(replace(elsewhere, network=replace(config.network, start=start, new_classifier=True)))
    assert torch.load(last, weights_only=True)["training"]["classes"] == ["001", "075"]


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        ("abcd", "abcx", " without d, but with x"),
        ("abcde", "abced", " in another order"),
        ("abcd", "abc", ""),
        ("ab", "ax", ""),
    ],
)
def test_people_that_are_described_alike(before: str, now: str, sentence: str) -> None:
    assert _first_difference(list(before), list(now)) == sentence


def test_another_network(begun: TrainingConfig, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**NETWORK, "strips": 8}))
    with pytest.raises(TrainingError, match="expected the network that the training began with, got another strips"):
        fit(replace(six(begun), network=replace(begun.network, file=str(other))))


def test_another_optimizer(begun: TrainingConfig) -> None:
    with pytest.raises(TrainingError, match=r"optimizer.name: expected adam, whose state is stored, got sgd"):
        fit(replace(six(begun), optimizer=replace(begun.optimizer, name="sgd")))


def test_a_checkpoint_of_a_network_alone(begun: TrainingConfig, tmp_path: Path) -> None:
    path = folder.checkpoint_path(tmp_path / "run", 4)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "training": None}, path)
    with pytest.raises(TrainingError, match="expected a checkpoint of a training, got one of a network alone"):
        fit(six(begun))


@pytest.mark.parametrize("training", [{}, {"config": {}, "classes": [], "scaler": None, "log": {}, "watch": {}}])
def test_a_checkpoint_of_another_loop(training: dict[str, Any], begun: TrainingConfig, tmp_path: Path) -> None:
    path = folder.checkpoint_path(tmp_path / "run", 4)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "training": training}, path)
    with pytest.raises(TrainingError, match=r"whose training lacks .*generators"):
        fit(six(begun))


def test_fewer_steps_than_were_made(begun: TrainingConfig) -> None:
    fewer = replace(begun, schedule=replace(begun.schedule, steps=3))
    with pytest.warns(TrainingWarning, match="all 3 steps and 1 more were made before"):
        fit(fewer)


@pytest.mark.parametrize("saved", [0, 4])
def test_points_for_tensorboard_are_not_doubled(saved: int, configure: Configure, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = configure(saving__tensorboard=True, saving__log_every=1)
    fit(configure(saving__tensorboard=True, saving__log_every=1, schedule__steps=5))
    # The process was killed before it could write the checkpoint of the last step, or any.
    for step in (2, 4, 5):
        if step > saved:
            folder.checkpoint_path(tmp_path / "run", step).unlink()
    with pytest.warns(TrainingWarning) if saved else nullcontext():
        fit(config)
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("training/loss")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in folder.read_lines(tmp_path / "run/log.jsonl")] == [1, 2, 3, 4, 5, 6]
