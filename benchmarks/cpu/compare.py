"""One workload, all its implementations: checked against float64 first, then timed interleaved."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core import interleaving, machine
from benchmarks.core.correctness import Answer, Bounds, Errors, errors
from benchmarks.core.interleaving import Call, Series
from benchmarks.core.plain import frozen, plain
from benchmarks.core.text import in_one_line
from benchmarks.core.turns import Timed
from benchmarks.cpu.implementations import Implementation, arranged
from benchmarks.cpu.memory import Peak
from benchmarks.cpu.ranks import RankChanges, nearest, rank_changes
from benchmarks.cpu.runtimes import Unavailable
from benchmarks.cpu.workloads import Workload


class Effort(NamedTuple):
    """The time and the number of rounds to spend on a workload.

    seconds: for all rounds of a workload together, within `fewest` and `most` rounds. enough: where `fewest` rounds
    would take longer than these seconds, `fewest_long` rounds do.
    """

    seconds: float
    fewest: int
    most: int
    enough: float = 15
    fewest_long: int = 3

    def rounds(self, one_round: float) -> int:
        """The number of rounds to run, if one takes so many seconds."""
        fewest = self.fewest if self.fewest * one_round <= self.enough else min(self.fewest, self.fewest_long)
        return interleaving.rounds_within(self.seconds, one_round, fewest, self.most)


FULL = Effort(seconds=2, fewest=5, most=25)
# One clip: few rounds of short calls would leave their medians to chance.
LATENCY = Effort(seconds=35, fewest=9, most=25, enough=60)
# A dozen minutes for the workloads that goals are set for.
GOALS = Effort(seconds=15, fewest=7, most=15, enough=30)
QUICK = Effort(seconds=0.5, fewest=3, most=10)


class Row(NamedTuple):
    """One implementation's errors and times, or the reason why there are none.

    prepared: seconds until the first answer, compilation for this shape included. awake: for how many seconds after
    each timed call its threads were awake, which the next call waited for.
    """

    implementation: str
    dtype: str = "float32"
    bounds: Bounds | None = None
    errors: Errors | None = None
    fault: str | None = None
    unavailable: str | None = None
    prepared: float | None = None
    seconds: tuple[float, ...] = ()
    awake: tuple[float, ...] = ()
    ranks: RankChanges | None = None

    @property
    def series(self) -> Series:
        """Median, quartiles and minimum of the times."""
        return interleaving.summarise(list(self.seconds))


# A timer runs so many rounds of the calls in turns and returns what it measured of each, as `turns.in_turns` does.
Timer = Callable[[Mapping[str, Call], int], Mapping[str, list[Timed]]]


class Prepared:
    """Networks that implementations have prepared.

    They are kept from one workload to the next on the same network, mode and number of threads, so that what is
    compiled for a shape is compiled once.
    """

    def __init__(self) -> None:
        self._key: tuple[nn.Module, bool, int] | None = None
        self._networks: dict[Implementation, nn.Module] = {}

    def network(self, implementation: Implementation, workload: Workload) -> nn.Module:
        """The network for the workload, at the number of threads in force; raises what `prepare` raises."""
        key = (workload.network, workload.training, torch.get_num_threads())
        if self._key != key:
            self._networks.clear()
            torch._dynamo.reset()
            self._key = key
        if implementation not in self._networks:
            self._networks[implementation] = implementation.prepare(workload.network, workload.training)
        return self._networks[implementation]


class Guarded:
    """The step of an implementation. One that raises is not run again: `fault` says why, and the others go on."""

    def __init__(self, step: Call) -> None:
        self.step = step
        self.fault: str | None = None

    def __call__(self) -> Any:
        if self.fault is not None:
            return None
        try:
            return self.step()
        except Exception as error:
            self.fault = f"raised {in_one_line(error)}"
            return None


def float64_reference(workload: Workload) -> Answer:
    """The answer to the workload's inputs by the plain network in float64."""
    if workload.float64_reference is not None:
        return workload.float64_reference(workload.network, workload.inputs)
    network = plain(frozen(workload.network, workload.training)).double()
    return workload.step(network, [x.double() if x.is_floating_point() else x for x in workload.inputs])


def compare(workload: Workload, effort: Effort, timer: Timer, prepared: Prepared) -> list[Row]:
    """A row for each of the workload's implementations; only those whose answer is within their bounds are timed."""
    found_in_float64 = _search_in_float64(workload)
    expected = {inputs: float64_reference(_with_inputs(workload, inputs)) for inputs in _distinct_inputs(workload)}
    rows: list[Row] = []
    calls: dict[str, Guarded] = {}
    with machine.threads(workload.threads):
        for each in workload.implementations:
            row, step = _checked(_with_inputs(workload, each.inputs), each, expected[each.inputs], prepared)
            if step is not None and found_in_float64 is not None and each.ranked:
                row = _searched(workload, each, row, found_in_float64, prepared)
            rows.append(row)
            if step is not None and row.fault is None:
                calls[row.implementation] = Guarded(step)
        one_round = sum(interleaving.timed(call) for call in calls.values())
        found = timer(calls, effort.rounds(one_round)) if calls else {}
    return [_timed(row, found.get(row.implementation, ()), calls.get(row.implementation)) for row in rows]


def describe(workload: Workload, rows: Sequence[Row], ours: str, peaks: Mapping[str, Peak]) -> dict[str, Any]:
    """The comparison with peak memory as plain values for the JSON file; rates are those of the medians."""
    medians = {row.implementation: row.series.median for row in rows if row.seconds}
    none = Peak(None)
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
        "implementations": {
            row.implementation: _described(workload, row, medians.get(ours), peaks.get(row.implementation, none))
            for row in rows
        },
    }


def _described(workload: Workload, row: Row, ours: float | None, peak: Peak) -> dict[str, Any]:
    described: dict[str, Any] = {
        "dtype": row.dtype,
        "bounds": row.bounds and row.bounds._asdict(),
        "errors": row.errors and row.errors._asdict(),
        "rank_changes": row.ranks and row.ranks._asdict(),
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
            "median_seconds_awake_after": round(median(row.awake), 4),
        }
    return described


def _distinct_inputs(workload: Workload) -> set[tuple[Tensor, ...] | None]:
    return {implementation.inputs for implementation in workload.implementations}


def _with_inputs(workload: Workload, inputs: Sequence[Tensor] | None) -> Workload:
    return workload if inputs is None else workload._replace(inputs=inputs)


def _checked(
    workload: Workload, implementation: Implementation, expected: Answer, prepared: Prepared
) -> tuple[Row, Call | None]:
    """The errors of the first answer and, if they are within the bounds, the step to time."""
    row = Row(implementation.name, implementation.dtype)
    start = time.perf_counter()
    try:
        network = prepared.network(implementation, workload)
        inputs = arranged(workload.inputs, implementation.layout)

        def step() -> Answer:
            with implementation.context():
                return workload.step(network, inputs)

        answer = step()
        seconds = time.perf_counter() - start
        bounds, found = workload.bounds[implementation.dtype], errors(answer, expected)
    except Unavailable as why:
        return row._replace(unavailable=str(why)), None
    except Exception as error:
        return row._replace(fault=f"raised {in_one_line(error)}"), None
    fault = found.fault(bounds)
    return row._replace(bounds=bounds, errors=found, fault=fault, prepared=seconds), None if fault else step


def _search_in_float64(workload: Workload) -> Tensor | None:
    """The nearest of the gallery to each probe, None without a search."""
    if workload.search is None:
        return None
    gallery, probes = (
        torch.cat([float64_reference(_with_inputs(workload, [clip])).outputs[0] for clip in clips])
        for clips in workload.search
    )
    return nearest(gallery, probes)


def _searched(
    workload: Workload, implementation: Implementation, row: Row, expected: Tensor, prepared: Prepared
) -> Row:
    """The row with its rank changes."""
    assert workload.search is not None
    try:
        network = prepared.network(implementation, workload)

        def embed(clips: Sequence[Tensor]) -> Tensor:
            with implementation.context():
                return workload.step(network, arranged(clips, implementation.layout)).outputs[0]

        ranks = rank_changes(embed, expected, workload.search)
    except Exception as error:
        return row._replace(fault=f"raised {in_one_line(error)}")
    return row._replace(ranks=ranks, fault=ranks.fault)


def _timed(row: Row, found: Sequence[Timed], call: Guarded | None) -> Row:
    if call is not None and call.fault is not None:
        return row._replace(fault=call.fault)
    return row._replace(seconds=tuple(each.seconds for each in found), awake=tuple(each.awake for each in found))
