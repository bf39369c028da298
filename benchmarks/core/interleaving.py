"""Interleaved timing: every implementation once in a round, so that a slow minute of the machine falls on all alike.

The order of a round is drawn anew, so that nobody always follows the same one, and from a fixed seed, so that the next
run has the same orders.
"""

import gc
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

Call = Callable[[], Any]
Measured = TypeVar("Measured")
SEED = 0


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


def orders(names: Iterable[str], rounds: int) -> Iterator[list[str]]:
    """The names in another order for each round, in every run the same."""
    names, generator = list(names), random.Random(SEED)
    for _ in range(rounds):
        yield generator.sample(names, len(names))


def interleaved(measures: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """The results of so many rounds, by name."""
    found: dict[str, list[Measured]] = {name: [] for name in measures}
    with without_garbage_collection():
        for order in orders(measures, rounds):
            run_round({name: measures[name] for name in order}, found)
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
