"""Timing rivals in turns, so that a slow minute of the machine falls on all of them alike."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any, NamedTuple

Call = Callable[[], Any]


class Series(NamedTuple):
    """What is reported of one rival's times, in seconds: half of them lie between `low` and `high`."""

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


def turn(calls: Mapping[str, Call], seconds: Mapping[str, list[float]]) -> None:
    """One turn of every rival in order; each time is appended to the rival's list."""
    for name, call in calls.items():
        seconds[name].append(timed(call))


def rounds_within(budget: float, one_round: float, fewest: int, most: int) -> int:
    """How many rounds of `one_round` seconds fit into `budget` seconds, between `fewest` and `most`."""
    return max(fewest, min(most, int(budget / max(one_round, 1e-9))))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect garbage before, not during."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
