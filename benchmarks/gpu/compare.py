"""Stage bench: one workload, all its implementations, checked against float64 first, then timed interleaved."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.core import interleaving
from benchmarks.core.correctness import Answer, errors
from benchmarks.gpu import implementations, peaks, suite, timing
from benchmarks.gpu.guarded import guarded
from benchmarks.gpu.implementations import Implementation
from benchmarks.gpu.suite import Entry
from benchmarks.gpu.supervise import Job, Reporter, Row
from benchmarks.gpu.timing import Call
from benchmarks.gpu.workloads import Runner, Workload

# The least and the greatest number of rounds.
FEWEST, MOST = 5, 40
TINY_ROUNDS = 2
PEAKS = "peaks"
# Precedes the name of what is timed interleaved with an implementation that has a process to itself.
BESIDE = "beside "


class Candidate(NamedTuple):
    """An implementation whose answer is right. queueing: seconds its caller needs to hand all work to the device."""

    implementation: Implementation
    call: Call
    row: Row
    queueing: float


class Times(NamedTuple):
    """Seconds of one call, for its caller and on the device."""

    wall: float
    device: float


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """The peaks, every workload with all implementations that run eagerly, libraries of others, and torch.compile."""
    measured = [Job("bench", PEAKS, tuple(_key(PEAKS, name) for name in peaks.NAMES), 120)]
    compiled: list[Job] = []
    others: list[Job] = []
    for entry in suite.entries(tiny):
        wanted = taking_part(entry, device)
        together = tuple(_key(entry.name, i.name) for i in wanted if not alone(i))
        measured.append(Job("bench", entry.name, together, 150))
        for implementation in filter(alone, wanted):
            job = Job("bench", entry.name, (_key(entry.name, implementation.name),), 300)
            (compiled if implementation.compiled else others).append(job)
    return measured + others + compiled


def alone(implementation: Implementation) -> bool:
    """Whether an implementation has a process to itself: it compiles for long, or brings a library of others."""
    return implementation.compiled or implementation.runtime is not None


def taking_part(entry: Entry, device: torch.device) -> list[Implementation]:
    """The implementations that compute an entry."""
    return [i for i in implementations.implementations(device) if _takes_part(i, entry, device)]


def _takes_part(implementation: Implementation, entry: Entry, device: torch.device) -> bool:
    """Whether it computes the entry, and no other backend in its name.

    The reference is measured on networks and forward passes in bfloat16 alone; on a layer's training step in every
    arithmetic, beside the kernels that may be chosen for it.
    """
    if implementation.runtime is not None:
        return entry.group in implementation.runtime.groups
    if implementation.compiled:
        return entry.compiled
    backend = implementation.backend
    if backend in (None, "auto"):
        return True
    trains_a_layer = entry.operator is not None and entry.group.endswith("backward")
    if backend == "reference" and implementation.numerics != implementations.BFLOAT16 and not trains_a_layer:
        return False
    found = implementations.resolved(backend, device, implementation.numerics.dtype)
    return found is not None and entry.operator in (None, *(name for name, by in found.items() if by == backend))


def execute(job: Job, reporter: Reporter, device: torch.device, tiny: bool) -> None:
    """Measure the rows of a job."""
    if job.name == PEAKS:
        for name in peaks.NAMES:
            key = _key(PEAKS, name)
            if key in job.keys:
                reporter.started(key)
                measure = functools.partial(peaks.measure, name, device, tiny)
                reporter.finished(key, guarded(measure, device, reporter, key))
        return
    wanted = []
    for implementation in implementations.implementations(device):
        key = _key(job.name, implementation.name)
        reason = implementation.runtime and implementation.runtime.why_not(device)
        if key in job.keys and reason:
            reporter.finished(key, {"status": "unavailable", "reason": reason})
        elif key in job.keys:
            wanted.append(implementation)
    if wanted:
        compare(suite.find(job.name, tiny), wanted, device, reporter, TINY_ROUNDS if tiny else None)


def compare(
    entry: Entry, wanted: list[Implementation], device: torch.device, reporter: Reporter, rounds: int | None = None
) -> None:
    """A row for each implementation; those whose answer is outside the bounds are not timed."""
    workload = entry.build(device)
    expected = workload.float64_reference()
    candidates = []
    for implementation in wanted:
        key = _key(entry.name, implementation.name)
        reporter.started(key)
        check = functools.partial(checked, workload, implementation, expected, device)
        found = guarded(check, device, reporter, key)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            reporter.finished(key, found)
    beside: list[Candidate] = []
    if any(alone(candidate.implementation) for candidate in candidates):
        check = functools.partial(checked, workload, _our_default(device), expected, device)
        found = guarded(check, device, reporter, _key(entry.name, candidates[0].implementation.name))
        beside = [found] if isinstance(found, Candidate) else []
    del expected
    times = timed([*candidates, *beside], device, entry.seconds, rounds)
    for candidate in candidates:
        name = candidate.implementation.name
        row = {**candidate.row, **_rates(workload, candidate.implementation, times[name])}
        row |= {BESIDE + other.implementation.name: times[other.implementation.name] for other in beside}
        reporter.finished(_key(entry.name, name), row)


def checked(
    workload: Workload, implementation: Implementation, expected: Answer, device: torch.device
) -> Candidate | Row:
    """Compare the implementation's answer with the expected one; a row that says what is wrong if it is."""
    runner, row = _prepared(workload, implementation, device)
    with implementation.on(device):
        start = time.perf_counter()
        found = errors(runner.answer(), expected)
        row["seconds_to_first_answer"] = time.perf_counter() - start
    bounds = workload.bounds(implementation)
    row |= {"errors": found._asdict(), "bounds": bounds._asdict()}
    fault = found.fault(bounds)
    if fault is not None:
        return {**row, "status": "wrong", "reason": fault}

    def call() -> object:
        if implementation.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        return runner.step()

    with implementation.on(device):
        for _ in range(2):
            call()
        memory = timing.peak_memory(call, device)
        row["peak_bytes"] = memory and memory._asdict()
        queueing = timing.queueing_seconds(call, device)
    return Candidate(implementation, call, row, queueing)


def timed(
    candidates: Sequence[Candidate], device: torch.device, budget: float, rounds: int | None
) -> dict[str, dict[str, Any]]:
    """Interleaved times of every candidate, summed up; `rounds` of them, or as many as fit into `budget` seconds."""
    measures = {c.implementation.name: functools.partial(_times, c, device) for c in candidates}
    found: dict[str, list[Times]] = {name: [] for name in measures}
    with interleaving.without_garbage_collection():
        start = time.perf_counter()
        interleaving.run_round(measures, found)
        if rounds is None:
            rounds = interleaving.rounds_within(budget, time.perf_counter() - start, FEWEST, MOST)
        for _ in range(rounds - 1):
            interleaving.run_round(measures, found)
    return {name: _summary(times) for name, times in found.items()}


def _times(candidate: Candidate, device: torch.device) -> Times:
    with candidate.implementation.on(device):
        wall = timing.wall_seconds(candidate.call, device)
        return Times(wall, timing.device_seconds(candidate.call, device, candidate.queueing))


def _summary(times: Sequence[Times]) -> dict[str, Any]:
    kinds = {"device": [t.device for t in times], "wall": [t.wall for t in times]}
    return {kind: interleaving.summarise(seconds)._asdict() for kind, seconds in kinds.items()}


def _prepared(workload: Workload, implementation: Implementation, device: torch.device) -> tuple[Runner, Row]:
    module = implementation.prepare(workload.network, workload.training)
    return workload.runner(implementation, module), {"status": "ok", **implementation.settings(device)}


def _our_default(device: torch.device) -> Implementation:
    """Our own as its users get it; every compiled implementation is timed interleaved with it."""
    return next(i for i in implementations.implementations(device) if i.backend == "auto")


def _rates(workload: Workload, implementation: Implementation, times: Mapping[str, Any]) -> Row:
    moved = workload.moved(implementation.numerics.dtype.itemsize)
    return {
        **times,
        "sequences": workload.sequences,
        "dense_flop": workload.flop,
        "sequences_per_second": workload.sequences / times["wall"]["median"],
        "dense_flop_per_second": workload.flop / times["device"]["median"],
        "byte_per_second": moved and moved / times["device"]["median"],
    }


def _key(workload: str, implementation: str) -> str:
    return f"{workload} | {implementation}"
