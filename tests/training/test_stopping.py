"""Trainings that are stopped by signals, and folders that another training writes into."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hstl_fast import files
from hstl_fast.signals import Ending
from hstl_fast.training import Status, TrainingStopped, TrainingWarning, Watcher, fit, folder
from hstl_fast.training.stopping import outlive_signals
from tests.training.conftest import Configure
from tests.training.processes import exists


class Signalling(Watcher):
    """Sends a signal to this process in a step."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_step(self, status: Status) -> None:
        if status.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_its_step(number: signal.Signals, configure: Configure, tmp_path: Path) -> None:
    config = configure(data__workers=1)
    before = signal.getsignal(number)
    with pytest.raises(TrainingStopped, match=f"stopped by {number.name} after 4 of 6 steps") as raised:
        fit(config, watcher=Signalling(number, 3))
    assert raised.value.signal == number
    assert not multiprocessing.active_children()
    assert signal.getsignal(number) == before
    assert folder.checkpoints_in(tmp_path / "run")[0].name == "step-00000004.pt"
    whole = fit(configure(output=str(tmp_path / "whole")))
    expected = torch.load(whole, weights_only=True)["model"]
    with pytest.warns(TrainingWarning, match="data.workers: 1 before, 0 now"):
        last = fit(configure())
    for name, tensor in torch.load(last, weights_only=True)["model"].items():
        assert torch.equal(tensor, expected[name]), name


def test_the_second_signal_acts_at_once() -> None:
    with Ending() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_are_left_alone_in_other_threads() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with Ending():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


class Greedy(Watcher):
    """Begins a second training in the folder of the first."""

    def __init__(self, config: object) -> None:
        self.config = config

    def on_step(self, status: Status) -> None:
        with pytest.raises(RuntimeError, match="expected a folder that no other training writes into"):
            fit(self.config)


def test_a_folder_that_this_process_writes_into(configure: Configure) -> None:
    config = configure(schedule__steps=1)
    fit(config, watcher=Greedy(config))
    with pytest.warns(TrainingWarning, match="all 1 steps were made before"):
        fit(config)


def hold(output: Path, ready: Any, end: Any) -> None:
    """Write into a folder until it is told to end."""
    with folder.locked(output):
        ready.set()
        end.wait(60)


def test_a_folder_that_another_process_writes_into(configure: Configure, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", ready, end))
    process.start()
    assert ready.wait(60)
    with pytest.raises(RuntimeError, match="run: expected a folder that no other training writes into, got one that"):
        fit(configure())
    end.set()
    process.join()
    assert fit(configure(schedule__steps=1)).exists()


def read_on(_: object) -> None:
    outlive_signals(0)
    time.sleep(600)


def start_reader(method: str, pids: Any) -> None:
    """Start a process that reads, tell its number, and go on until this process is killed."""
    reader = multiprocessing.get_context(method).Process(target=read_on, args=(0,), daemon=True)
    reader.start()
    pids.put(reader.pid)
    time.sleep(600)


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes_that_read_end_with_a_training_that_is_killed(method: str) -> None:
    context = multiprocessing.get_context(method)
    pids = context.Queue()
    process = context.Process(target=start_reader, args=(method, pids))
    process.start()
    reader = pids.get(timeout=60)
    assert exists(reader)
    process.kill()
    end = time.monotonic() + 60
    while exists(reader):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_log_on_a_full_disk_is_named(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(entry: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "json", SimpleNamespace(dumps=full))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as raised:
        fit(configure(saving__log_every=1))
    assert raised.value.filename == str(tmp_path / "run/log.jsonl")


def test_what_a_killed_training_had_begun_to_write_is_removed(configure: Configure, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # as if it had been killed
        fit(configure(schedule__steps=1))
    assert list((tmp_path / "run").glob(".config.yaml.draft-*"))
    with pytest.warns(TrainingWarning, match="all 1 steps were made before"):
        fit(configure(schedule__steps=1))
    assert not list((tmp_path / "run").glob(".*.draft-*"))
