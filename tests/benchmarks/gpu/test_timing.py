"""Times and memory on a GPU, by fakes of what torch.cuda does."""

import pytest
import torch

from benchmarks.gpu import (
    timing,
)
from tests.benchmarks.gpu.helpers import CPU


def test_the_device_is_kept_busy_while_work_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            happened.append("event")

        def elapsed_time(self, later: object) -> float:
            return 2.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: happened.append(f"sleep {cycles}"))
    seconds = timing.device_seconds(lambda: happened.append("call"), torch.device("cuda"), queueing=0.01)
    assert seconds == 0.0025
    assert happened == ["wait", "sleep 30000000", "event", "call", "event", "wait"]


def test_memory_is_what_one_call_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"memory_allocated": 10, "memory_reserved": 20, "max_memory_allocated": 17, "max_memory_reserved": 29}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert timing.peak_memory(lambda: None, torch.device("cuda")) == (7, 9)
    assert timing.peak_memory(lambda: None, CPU) is None
