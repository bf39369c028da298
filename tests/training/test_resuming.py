"""Trainings that are killed at any moment and go on: they come to what one comes to that nobody disturbed."""

import io
import itertools
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast.training import TrainingConfig, fit, folder
from tests.training.conftest import Configure
from tests.training.processes import training, wait_for


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_equal(first: Any, second: Any, name: str = "checkpoint") -> None:
    """Whether two contents of checkpoints are equal to the bit, but for the folder in which they were written."""
    assert type(first) is type(second), name
    if isinstance(first, Mapping):
        assert set(first) == set(second), name
        for key in first:
            if (name, key) != ("checkpoint.training.config", "output"):
                assert_equal(first[key], second[key], f"{name}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), name
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{name}[{i}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    else:
        assert first == second, name


def losses(output: Path) -> list[tuple[Any, ...]]:
    """What does not depend on the time that passed."""
    return [
        (line["step"], line["loss"], line["triplet"], line["lr"]) for line in folder.read_lines(output / "log.jsonl")
    ]


def assert_same_training(first: Path, second: Path) -> None:
    assert_equal(content(first), content(second))
    assert losses(first.parents[1]) == losses(second.parents[1])


def last_line(output: Path) -> int:
    """The step of the last line of the log."""
    return max((line["step"] for line in folder.read_lines(output / "log.jsonl")), default=0)


def die_while_writing() -> None:
    """Let the process be killed when it has written half of its next checkpoint but one."""
    save, count = torch.save, itertools.count(1)

    def half(content: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(content, whole)
        is_second = next(count) == 2
        file.write(whole.getvalue()[: whole.tell() // (1 + is_second)])
        if is_second:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


def kill_after(config: TrainingConfig, step: int) -> None:
    """Train until there is a checkpoint of a step, then kill the training."""
    with training(config) as process:
        wait_for(folder.checkpoint_path(Path(config.output), step).exists, process)


@pytest.mark.slow
def test_killed_twice(configure: Configure, tmp_path: Path) -> None:
    whole = fit(configure(output=str(tmp_path / "whole"), schedule__steps=20, saving__log_every=5))
    config = configure(schedule__steps=20, saving__log_every=5)
    kill_after(config, 6)
    with training(config, die_while_writing) as process:
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    drafts = [path for path in (tmp_path / "run/checkpoints").iterdir() if path.name.startswith(".")]
    assert len(drafts) == 1
    last = fit(config)
    assert not drafts[0].exists()
    assert len(folder.checkpoints_in(tmp_path / "run")) == 3
    assert_same_training(last, whole)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_ten_times_at_random(configure: Configure, tmp_path: Path) -> None:
    settings = {"schedule__steps": 200, "saving__every": 8, "saving__log_every": 1}
    whole = fit(configure(output=str(tmp_path / "whole"), **settings))
    moments = random.Random(5)
    for i, step in enumerate(sorted(moments.sample(range(1, 195), 10))):
        with training(configure(**settings, data__workers=int(i % 5 == 3))) as process:
            wait_for(lambda step=step: last_line(tmp_path / "run") >= step, process)
            time.sleep(moments.uniform(0, 0.02))
    assert 150 < last_line(tmp_path / "run") < 200
    assert_same_training(fit(configure(**settings)), whole)
