"""A timed call begins when the threads of the one before are asleep."""

import functools
import threading
import time
from pathlib import Path

import pytest

from benchmarks.core import turns


class Engine:
    """Calls that leave a thread behind which works on for some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = 0.0
        self.threads: list[threading.Thread] = []

    def __call__(self) -> None:
        self.until = time.perf_counter() + self.seconds
        self.threads.append(threading.Thread(target=self._work))
        self.threads[-1].start()

    def _work(self) -> None:
        while time.perf_counter() < self.until:
            pass

    def is_at_work(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def join(self) -> None:
        self.until = 0.0
        for thread in self.threads:
            thread.join()


def test_waits_for_threads_that_work_on() -> None:
    engine = Engine(0.05)
    seen: list[bool] = []
    found = turns.in_turns({"engine": engine, "next": lambda: seen.append(engine.is_at_work())}, 3)
    assert seen == [False] * 3
    assert all(turns.PAUSE < each.awake < turns.BOUND for each in found["engine"])


def test_waits_no_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BOUND", 0.05)
    engine = Engine(60)
    engine()
    try:
        assert turns.seconds_until_asleep() >= 0.05
        assert engine.is_at_work()
    finally:
        engine.join()


@pytest.mark.parametrize("states", ["missing", "gone"])
def test_processor_time_alone_counts_where_states_are_not_known(
    states: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone" / "1" / "stat").mkdir(parents=True)
    monkeypatch.setattr(turns, "TASKS", tmp_path / states)
    seconds = iter([0.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(turns, "_seconds_of_others", lambda: next(seconds))
    assert turns.seconds_until_asleep() >= 2 * turns.PAUSE
    assert next(seconds, None) is None


def test_everyone_is_called_once_in_a_round() -> None:
    order: list[str] = []
    found = turns.in_turns({name: functools.partial(order.append, name) for name in "ABC"}, rounds=4)
    assert [sorted(order[i : i + 3]) for i in range(0, 12, 3)] == [["A", "B", "C"]] * 4
    assert {name: len(times) for name, times in found.items()} == {"A": 4, "B": 4, "C": 4}
