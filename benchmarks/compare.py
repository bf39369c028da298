"""One workload, every rival: correct first, then timed in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks import interleave
from benchmarks.gate import Answer, Errors, errors
from benchmarks.interleave import Call, Series
from benchmarks.plain import frozen, plain
from benchmarks.rivals import Rival, Unavailable, arranged
from benchmarks.workloads import Workload


class Effort(NamedTuple):
    """How long to measure: seconds for all rounds of a workload together, within a number of rounds."""

    seconds: float
    fewest: int
    most: int


FULL = Effort(seconds=4, fewest=5, most=50)
QUICK = Effort(seconds=0.5, fewest=3, most=10)


class Row(NamedTuple):
    """What became of one rival: its errors and times, or why there are none. `prepared` is the seconds until its first
    answer, compilation included."""

    rival: str
    errors: Errors | None = None
    fault: str | None = None
    unavailable: str | None = None
    prepared: float | None = None
    seconds: tuple[float, ...] = ()

    @property
    def series(self) -> Series:
        return interleave.summarise(list(self.seconds))


Timer = Callable[[Mapping[str, Call], int], Mapping[str, list[float]]]
"""Runs so many rounds of the calls in turns and returns every call's seconds."""


def truth(workload: Workload) -> Answer:
    """The reference's answer in float64."""
    return workload.step(
        plain(frozen(workload.network, workload.training).double()), [_wide(x) for x in workload.inputs]
    )


def compare(workload: Workload, rivals: Sequence[Rival], effort: Effort, timer: Timer) -> list[Row]:
    """A row for each rival. Only those whose answer is within the workload's bounds are timed."""
    expected = truth(workload)
    admitted = [_admit(workload, rival, expected) for rival in rivals]
    calls = {row.rival: call for row, call in admitted if call is not None}
    if not calls:
        return [row for row, _ in admitted]
    one_round = sum(interleave.timed(call) for call in calls.values())
    rounds = interleave.rounds_within(effort.seconds, one_round, effort.fewest, effort.most)
    seconds = timer(calls, rounds)
    return [row._replace(seconds=tuple(seconds.get(row.rival, ()))) for row, _ in admitted]


def take_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """The plain timer: A B C, A B C, ..."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with interleave.without_garbage_collection():
        for _ in range(rounds):
            interleave.turn(calls, seconds)
    return seconds


def describe(workload: Workload, rows: Sequence[Row], ours: str) -> dict[str, Any]:
    """The comparison as plain values for the JSON file; rates are those of the medians."""
    medians = {row.rival: row.series.median for row in rows if row.seconds}
    return {
        "workload": workload.name,
        "group": workload.group,
        "preset": workload.preset,
        "training": workload.training,
        "dense_flop": 2 * workload.macs,
        "least_bytes": workload.bytes,
        "bounds": workload.bounds._asdict(),
        "rivals": {row.rival: _described(workload, row, medians.get(ours)) for row in rows},
    }


def _described(workload: Workload, row: Row, ours: float | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "errors": row.errors and row.errors._asdict(),
        "fault": row.fault,
        "unavailable": row.unavailable,
        "seconds_to_first_answer": row.prepared,
    }
    if row.seconds:
        series = row.series
        described |= {
            **series._asdict(),
            "ours_is_times_faster": ours and series.median / ours,
            "dense_gflop_per_second": 2 * workload.macs / series.median / 1e9,
            "least_gbyte_per_second": workload.bytes and workload.bytes / series.median / 1e9,
            "seconds": list(row.seconds),
        }
    return described


def _admit(workload: Workload, rival: Rival, expected: Answer) -> tuple[Row, Call | None]:
    start = time.perf_counter()
    try:
        network = rival.prepare(workload.network, workload.training)
    except Unavailable as reason:
        return Row(rival.name, unavailable=str(reason)), None
    inputs = arranged(workload.inputs, rival.layout)

    def call() -> Answer:
        with rival.context():
            return workload.step(network, inputs)

    answer = call()
    row = Row(rival.name, errors=errors(answer, expected), prepared=time.perf_counter() - start)
    assert row.errors is not None
    fault = row.errors.fault(workload.bounds)
    return row._replace(fault=fault), None if fault else call


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
