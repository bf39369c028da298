"""One workload, every rival: correct first, then timed in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core import interleaving, machine
from benchmarks.core.correctness import Answer, Bounds, Errors, errors
from benchmarks.core.interleaving import Call, Series
from benchmarks.core.plain import frozen, plain
from benchmarks.cpu.baselines import Rival, Unavailable, arranged
from benchmarks.cpu.memory import Peak
from benchmarks.cpu.workloads import Workload

LONGEST_REASON = 200
"""Characters of an exception that are shown."""


class Effort(NamedTuple):
    """How long to measure: seconds for all rounds of a workload together, within a number of rounds; `enough` seconds
    end it even before that, after `fewest_long` rounds."""

    seconds: float
    fewest: int
    most: int
    enough: float = 15
    fewest_long: int = 3

    def rounds(self, one_round: float) -> int:
        """How many rounds to run, each of so many seconds."""
        fewest = self.fewest if self.fewest * one_round <= self.enough else min(self.fewest, self.fewest_long)
        return interleaving.rounds_within(self.seconds, one_round, fewest, self.most)


FULL = Effort(seconds=2, fewest=5, most=25)
LATENCY = Effort(seconds=35, fewest=9, most=25, enough=60)
"""For one clip: a few rounds of short calls leave their medians to chance."""
QUICK = Effort(seconds=0.5, fewest=3, most=10)


class Row(NamedTuple):
    """What became of one rival: its errors and times, or why there are none. `prepared` is the seconds until its first
    answer, compilation for this shape included."""

    rival: str
    dtype: str = "float32"
    bounds: Bounds | None = None
    errors: Errors | None = None
    fault: str | None = None
    unavailable: str | None = None
    prepared: float | None = None
    seconds: tuple[float, ...] = ()

    @property
    def series(self) -> Series:
        return interleaving.summarise(list(self.seconds))


Timer = Callable[[Mapping[str, Call], int], Mapping[str, list[float]]]
"""Runs so many rounds of the calls in turns and returns every call's seconds."""


class Prepared:
    """The rivals' networks, kept from one workload to the next on the same network, mode and threads, so that what is
    compiled for a shape is compiled once."""

    def __init__(self) -> None:
        self._of: tuple[nn.Module, bool, int] | None = None
        self._networks: dict[Rival, nn.Module] = {}

    def network(self, rival: Rival, workload: Workload) -> nn.Module:
        """The rival's network for the workload, at the number of threads in force; what `prepare` raises."""
        wanted = (workload.network, workload.training, torch.get_num_threads())
        if self._of != wanted:
            self._networks.clear()
            torch._dynamo.reset()
            self._of = wanted
        if rival not in self._networks:
            self._networks[rival] = rival.prepare(workload.network, workload.training)
        return self._networks[rival]


class Guarded:
    """A rival's step. One that raises is not run again: `fault` says why, and the others go on."""

    def __init__(self, step: Call) -> None:
        self.step = step
        self.fault: str | None = None

    def __call__(self) -> Any:
        if self.fault is not None:
            return None
        try:
            return self.step()
        except Exception as error:
            self.fault = reason(error)
            return None


def truth(workload: Workload) -> Answer:
    """The reference's answer to the workload's inputs, in float64."""
    if workload.truth is not None:
        return workload.truth(workload.network, workload.inputs)
    network = plain(frozen(workload.network, workload.training)).double()
    return workload.step(network, [_wide(x) for x in workload.inputs])


def compare(workload: Workload, effort: Effort, timer: Timer, prepared: Prepared) -> list[Row]:
    """A row for each of the workload's rivals. Only those whose answer is within their bounds are timed."""
    expected = {given: truth(_given(workload, given)) for given in {rival.given for rival in workload.rivals}}
    with machine.threads(workload.threads):
        admitted = [_admit(_given(workload, r.given), r, expected[r.given], prepared) for r in workload.rivals]
        calls = {row.rival: Guarded(step) for row, step in admitted if step is not None}
        one_round = sum(interleaving.timed(call) for call in calls.values())
        seconds = timer(calls, effort.rounds(one_round)) if calls else {}
    return [_timed(row, seconds.get(row.rival, ()), calls.get(row.rival)) for row, _ in admitted]


def take_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """The plain timer: A B C, A B C, ..."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with interleaving.without_garbage_collection():
        for _ in range(rounds):
            interleaving.turn(calls, seconds)
    return seconds


def reason(error: Exception) -> str:
    """An exception in one line, without the folders of this machine."""
    return machine.anonymous(f"raised {type(error).__name__}: {error}")[:LONGEST_REASON]


def describe(workload: Workload, rows: Sequence[Row], ours: str, peaks: Mapping[str, Peak]) -> dict[str, Any]:
    """The comparison, and the rivals' memory, as plain values for the JSON file; rates are those of the medians."""
    medians = {row.rival: row.series.median for row in rows if row.seconds}
    return {
        "workload": workload.name,
        "group": workload.group,
        "preset": workload.preset,
        "training": workload.training,
        "clips": workload.clips,
        "frames": workload.frames,
        "threads": workload.threads or torch.get_num_threads(),
        "silhouettes": workload.silhouettes,
        "scaling": workload.scaling and workload.scaling._asdict(),
        **workload.products.flop,
        "least_bytes": workload.bytes,
        "bounds": workload.bounds["float32"]._asdict(),
        "rivals": {
            row.rival: _described(workload, row, medians.get(ours), peaks.get(row.rival, Peak(None))) for row in rows
        },
    }


def _described(workload: Workload, row: Row, ours: float | None, peak: Peak) -> dict[str, Any]:
    described: dict[str, Any] = {
        "dtype": row.dtype,
        "bounds": row.bounds and row.bounds._asdict(),
        "errors": row.errors and row.errors._asdict(),
        "fault": row.fault,
        "unavailable": row.unavailable,
        "seconds_to_first_answer": row.prepared and round(row.prepared, 3),
        "peak_bytes": peak.bytes,
        "peak_missing": peak.missing,
    }
    if row.seconds:
        series = row.series
        described |= {
            **series._asdict(),
            "ours_is_times_faster": ours and series.median / ours,
            "dense_gflop_per_second": 2 * workload.products.dense / series.median / 1e9,
            "least_gbyte_per_second": workload.bytes and workload.bytes / series.median / 1e9,
            "seconds": [round(seconds, 7) for seconds in row.seconds],
        }
    return described


def _given(workload: Workload, inputs: Sequence[Tensor] | None) -> Workload:
    return workload if inputs is None else workload._replace(inputs=inputs)


def _admit(workload: Workload, rival: Rival, expected: Answer, prepared: Prepared) -> tuple[Row, Call | None]:
    row = Row(rival.name, rival.dtype)
    start = time.perf_counter()
    try:
        network = prepared.network(rival, workload)
        inputs = arranged(workload.inputs, rival.layout)

        def step() -> Answer:
            with rival.context():
                return workload.step(network, inputs)

        answer = step()
        seconds = time.perf_counter() - start
        bounds, found = workload.bounds[rival.dtype], errors(answer, expected)
    except Unavailable as why:
        return row._replace(unavailable=str(why)), None
    except Exception as error:
        return row._replace(fault=reason(error)), None
    fault = found.fault(bounds)
    return row._replace(bounds=bounds, errors=found, fault=fault, prepared=seconds), None if fault else step


def _timed(row: Row, seconds: Sequence[float], call: Guarded | None) -> Row:
    if call is not None and call.fault is not None:
        return row._replace(fault=call.fault)
    return row._replace(seconds=tuple(seconds))


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
