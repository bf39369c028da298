"""Timed calls of several engines in one process, each begun when the threads of the one before are asleep.

Engines keep threads of their own, which look for more work for a while before they sleep. On a machine with as many
cores as threads they would take the cores of the engine that is timed next.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.core.interleaving import SEED, Call, orders, timed, without_garbage_collection

# Threads are asleep if in a pause of so many seconds the others than this one take at most this share of it in all, and
# none is runnable at its end.
PAUSE, SHARE = 0.002, 0.05
# So many seconds are waited at most: a thread that never sleeps is a part of its engine.
BOUND = 0.5
TASKS = Path("/proc/self/task")


class Timed(NamedTuple):
    """Seconds of a call, and for how long afterwards threads of this process were awake, `BOUND` or more if always."""

    seconds: float
    awake: float


class Turns:
    """The calls of a comparison, timed one at a time.

    Attributes:
        found: What was measured, by the calls' names.
    """

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self.calls = calls
        self.found: dict[str, list[Timed]] = {name: [] for name in calls}
        seconds_until_asleep()

    def take(self, names: Iterable[str]) -> None:
        """Time these calls one after another."""
        for name in names:
            self.call(name)
            self.rest(name)

    def call(self, name: str) -> None:
        """Time one call; `rest` has to follow."""
        self.found[name].append(Timed(timed(self.calls[name]), 0.0))

    def rest(self, name: str) -> None:
        """Wait until the threads of the call that was timed last are asleep."""
        last = self.found[name].pop()
        self.found[name].append(last._replace(awake=seconds_until_asleep()))


def in_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[Timed]]:
    """So many rounds of the calls, by name."""
    with without_garbage_collection():
        turns = Turns(calls)
        for order in orders(calls, rounds):
            turns.take(order)
    return turns.found


def seconds_until_asleep() -> float:
    """Wait until the other threads of this process are asleep, and return for how long they were not."""
    start = time.perf_counter()
    while (begun := time.perf_counter() - start) < BOUND:
        before = _seconds_of_others()
        time.sleep(PAUSE)
        if _seconds_of_others() - before <= SHARE * PAUSE and not _is_another_runnable():
            return begun
    return begun


def described() -> dict[str, Any]:
    """The way of timing as plain values for the JSON file."""
    return {
        "order": f"drawn for every round from the seed {SEED}",
        "begun": "when the other threads of the process are asleep",
        "asleep_seconds": PAUSE,
        "asleep_share": SHARE,
        "longest_wait_seconds": BOUND,
    }


def _seconds_of_others() -> float:
    """Processor time that all threads of this process but this one have taken."""
    return time.process_time() - time.thread_time()


def _is_another_runnable() -> bool:
    """Whether another thread of this process runs or waits for a core; False where the system does not say."""
    states = {path.parent.name: _state(path) for path in TASKS.glob("*/stat")}
    return any(state == "R" for thread, state in states.items() if thread != str(threading.get_native_id()))


def _state(path: Path) -> str | None:
    """The letter after the thread's name; None for a thread that is gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return None
