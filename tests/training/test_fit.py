"""A training from its beginning to its end: what it writes, and that one which was stopped comes to the same."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast import HSTL
from hstl_fast.checkpoints import load_checkpoint
from hstl_fast.progress import silent
from hstl_fast.training import Status, TrainingConfig, Watcher, fit
from hstl_fast.training.fitting import run
from tests.training.conftest import Configure


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_writes_checkpoints_and_a_log(configure: Configure, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    last = fit(configure(), lambda *called: seen.append(called))
    assert last == tmp_path / "run/checkpoints/step-00000006.pt"
    assert isinstance(HSTL.from_official_checkpoint(last), HSTL)
    assert seen[-1] == ("training", 6, 6)
    assert [path.name for path in sorted(last.parent.iterdir())] == [f"step-0000000{i}.pt" for i in (2, 4, 6)]
    assert [line["step"] for line in lines(tmp_path / "run/log.jsonl")] == [2, 4, 6]
    assert load_checkpoint(last).training["classes"] == ["001", "002"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


def losses(path: Path) -> list[tuple[int, float, float]]:
    return [(line["step"], line["loss"], line["lr"]) for line in lines(path)]


def test_a_training_that_was_stopped_comes_to_the_same(configure: Configure, tmp_path: Path) -> None:
    whole = fit(configure(output=str(tmp_path / "whole"), saving__log_every=3))
    first = fit(configure(saving__log_every=3, schedule__steps=4))
    assert first.name == "step-00000004.pt"
    with pytest.warns(match="schedule.steps: 4 before, 6 now"):
        again = fit(configure(saving__log_every=3))
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(again).values(), strict=True))
    assert losses(tmp_path / "whole/log.jsonl") == losses(tmp_path / "run/log.jsonl")


class Statuses(Watcher):
    """Keeps what it is told of steps."""

    def __init__(self) -> None:
        self.seen: list[Status] = []

    def on_step(self, status: Status) -> None:
        self.seen.append(status)


def test_every_step_is_told(configure: Configure, tmp_path: Path) -> None:
    watcher = Statuses()
    fit(configure(saving__log_every=1), watcher=watcher)
    assert [status.step for status in watcher.seen] == [1, 2, 3, 4, 5, 6]
    assert {status.steps for status in watcher.seen} == {6}
    entries = lines(tmp_path / "run/log.jsonl")
    assert [(status.loss, status.lr) for status in watcher.seen] == [(line["loss"], line["lr"]) for line in entries]
    assert all(status.seconds_left > 0 for status in watcher.seen[:-1])
    assert watcher.seen[-1].seconds_left == 0


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.mark.parametrize("every", [2, 4])
def test_an_evaluation_that_was_killed_is_made_again(every: int, configure: Configure, tmp_path: Path) -> None:
    def killed(model: HSTL, config: TrainingConfig, step: int) -> dict[str, Any]:
        raise Killed

    def evaluated(model: HSTL, config: TrainingConfig, step: int) -> dict[str, Any]:
        return {"training": model.training}

    config = configure(schedule__steps=4, evaluation__every=every)
    with pytest.raises(Killed):
        run(config, silent, Watcher(), killed)
    with nullcontext() if every < 4 else pytest.warns(match="all 4 steps were made before"):
        last = run(config, silent, Watcher(), evaluated)
    expected = [{"step": step, "training": False} for step in range(every, 5, every)]
    assert lines(tmp_path / "run/evaluation.jsonl") == expected
    before = last.stat().st_mtime_ns
    with pytest.warns(match="all 4 steps were made before"):
        assert run(config, silent, Watcher(), killed) == last
    assert last.stat().st_mtime_ns == before
