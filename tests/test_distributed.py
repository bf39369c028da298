"""Processes that share one task: threads stand for them here, with one store between them."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch.distributed

from hstl_fast.distributed import ProcessError, Processes, rank_and_size


def in_all(size: int, task: Callable[[Processes], Any]) -> list[Any]:
    """Run a task in as many processes; returns what each returns or raises, by rank."""
    store = torch.distributed.HashStore()
    outcomes: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            outcomes[rank] = task(Processes(rank, size, store))
        except Exception as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return outcomes


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_unit_is_taken_once(size: int) -> None:
    def task(processes: Processes) -> list[list[int]]:
        first = processes.together(lambda: list(processes.units(20)))
        return [*first, [-1], *processes.together(lambda: list(processes.units(3)))]

    outcomes = in_all(size, task)
    assert all(outcome == outcomes[0] for outcome in outcomes), "all know the results of all"
    taken = [unit for part in outcomes[0][:size] for unit in part]
    assert sorted(taken) == list(range(20))
    assert sorted(unit for part in outcomes[0][size + 1 :] for unit in part) == [0, 1, 2]


def test_a_slow_process_takes_fewer_units() -> None:
    def task(processes: Processes) -> list[list[int]]:
        def work() -> list[int]:
            taken = []
            for unit in processes.units(12):
                taken.append(unit)
                time.sleep(0.2 if processes.rank == 0 else 0.01)
            return taken

        return processes.together(work)

    slow, fast = in_all(2, task)[0]
    assert len(slow) < len(fast)


def test_an_error_ends_the_work_in_all() -> None:
    done: list[int] = []

    def task(processes: Processes) -> None:
        def work() -> None:
            for unit in processes.units(10**6):
                if unit == 5:
                    raise OSError("the disk\nis full")
                done.append(unit)
                time.sleep(0.001)

        processes.together(work)

    outcomes = in_all(3, task)
    assert sum(isinstance(outcome, OSError) for outcome in outcomes) == 1
    others = [outcome for outcome in outcomes if isinstance(outcome, ProcessError)]
    failed = next(rank for rank, outcome in enumerate(outcomes) if isinstance(outcome, OSError))
    assert [str(other) for other in others] == [f"process {failed} of 3: the disk is full"] * 2
    assert len(done) < 10**5


def test_counters_and_waiting() -> None:
    seen: list[int] = []

    def task(processes: Processes) -> None:
        def work() -> None:
            time.sleep(0.3 * processes.rank)
            processes.count("frames", 10)

        def waiting() -> None:
            if processes.rank == 0:
                seen.append(processes.count("frames"))

        processes.together(work, waiting)

    assert in_all(2, task) == [None, None]
    assert seen[0] == 10
    assert seen[-1] == 20


def test_without_torchrun_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rank_and_size() == (0, 1)
    assert (Processes.join().rank, Processes.join().size) == (0, 1)


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "two")])
def test_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    values = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"RANK below WORLD_SIZE.*got RANK={rank}, WORLD_SIZE={size}"):
        Processes.join()
