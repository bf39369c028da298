"""Interleaved timing, A B C, A B C, ...: a slow minute of the machine falls on all implementations alike."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

Call = Callable[[], Any]
Measured = TypeVar("Measured")


class Series(NamedTuple):
    """Summary of one implementation's times in seconds; half of them lie between `low` and `high`."""

    median: float
    low: float
    high: float
    fastest: float
    rounds: int


def summarise(seconds: list[float]) -> Series:
    """Median, quartiles and minimum."""
    low, _, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Series(median(seconds), low, high, min(seconds), len(seconds))


def timed(call: Call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run_round(measures: Mapping[str, Callable[[], Measured]], found: Mapping[str, list[Measured]]) -> None:
    """Measure everyone once, in order; each result is appended to the list of its name."""
    for name, measure in measures.items():
        found[name].append(measure())


def interleaved(measures: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """The results of so many rounds, by name."""
    found: dict[str, list[Measured]] = {name: [] for name in measures}
    with without_garbage_collection():
        for _ in range(rounds):
            run_round(measures, found)
    return found


def rounds_within(budget: float, one_round: float, fewest: int, most: int) -> int:
    """The number of rounds of `one_round` seconds that fit into `budget` seconds, between `fewest` and `most`."""
    return max(fewest, min(most, int(budget / max(one_round, 1e-9))))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect garbage before the block, not during it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
