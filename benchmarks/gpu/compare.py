"""One workload, all its contestants: right first, then timed in turns."""

import functools
import time
from typing import Any, NamedTuple

import torch

from benchmarks.core import interleaving
from benchmarks.core.correctness import Answer, errors
from benchmarks.gpu import baselines, peaks, suite, timing
from benchmarks.gpu.baselines import Contestant
from benchmarks.gpu.guarded import attempt
from benchmarks.gpu.suite import Workload
from benchmarks.gpu.supervise import Job, Row, Say
from benchmarks.gpu.timing import Call
from benchmarks.gpu.workloads import Problem, Runner

FEWEST, MOST = 5, 40
"""How many rounds there may be."""
TINY_ROUNDS = 2
CEILINGS = "ceilings"
BESIDE = "beside "
"""Before the name of what is measured in turns with a contestant that has a process to itself."""


class Entry(NamedTuple):
    """A contestant that answered rightly. queueing: seconds its caller needs to hand all work to the device."""

    contestant: Contestant
    call: Call
    row: Row
    queueing: float


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """The ceilings, every workload with all that run eagerly, and then what torch.compile makes of each."""
    everybody = baselines.contestants(device)
    measured = [Job("bench", CEILINGS, tuple(_key(CEILINGS, name) for name in peaks.NAMES), 120)]
    compiled = []
    for workload in suite.workloads(tiny):
        taking_part = [c for c in everybody if suite.takes_part(c, workload)]
        eager = tuple(_key(workload.name, c.name) for c in taking_part if not c.compiled)
        measured.append(Job("bench", workload.name, eager, 150))
        compiled += [
            Job("bench", workload.name, (_key(workload.name, c.name),), 300) for c in taking_part if c.compiled
        ]
    return measured + compiled


def execute(job: Job, say: Say, device: torch.device, tiny: bool) -> None:
    """Measure the rows of a job."""
    if job.name == CEILINGS:
        for name in peaks.NAMES:
            key = _key(CEILINGS, name)
            if key in job.keys:
                say.doing(key)
                say.row(key, attempt(functools.partial(peaks.measure, name, device, tiny), device, say, key))
        return
    wanted = [c for c in baselines.contestants(device) if _key(job.name, c.name) in job.keys]
    compare(suite.find(job.name, tiny), wanted, device, say, TINY_ROUNDS if tiny else None)


def compare(
    workload: Workload, wanted: list[Contestant], device: torch.device, say: Say, rounds: int | None = None
) -> None:
    """A row for each contestant; those whose answer is outside the bounds are not timed."""
    problem = workload.build(device)
    truth = problem.truth()
    entries = []
    for contestant in wanted:
        key = _key(workload.name, contestant.name)
        say.doing(key)
        found = attempt(functools.partial(admit, problem, contestant, truth, device), device, say, key)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            say.row(key, found)
    beside = []
    if any(entry.contestant.compiled for entry in entries):
        beside = _beside(problem, truth, device, say, _key(workload.name, entries[0].contestant.name))
    del truth
    times = take_turns([*entries, *beside], device, workload.seconds, rounds)
    for entry in entries:
        row = {**entry.row, **_rates(problem, entry.contestant, times[entry.contestant.name])}
        row |= {BESIDE + other.contestant.name: times[other.contestant.name] for other in beside}
        say.row(_key(workload.name, entry.contestant.name), row)


def admit(problem: Problem, contestant: Contestant, truth: Answer, device: torch.device) -> Entry | Row:
    """Let the contestant answer; what it needs for a call once it is warm, or what is wrong."""
    runner, row = _prepared(problem, contestant, device)
    with contestant.on(device):
        start = time.perf_counter()
        found = errors(runner.answer(), truth)
        row["seconds_to_first_answer"] = time.perf_counter() - start
    bounds = problem.bounds(contestant)
    row |= {"errors": found._asdict(), "bounds": bounds._asdict()}
    fault = found.fault(bounds)
    if fault is not None:
        return {**row, "status": "wrong", "reason": fault}

    def call() -> object:
        if contestant.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        return runner.step()

    with contestant.on(device):
        for _ in range(2):
            call()
        memory = timing.peak_memory(call, device)
        row["peak_bytes"] = memory and memory._asdict()
        queueing = timing.queueing_seconds(call, device)
    return Entry(contestant, call, row, queueing)


def take_turns(
    entries: list[Entry], device: torch.device, budget: float, rounds: int | None
) -> dict[str, dict[str, Any]]:
    """Every contestant's times on the device and from outside, one call of each after the other; `rounds` times, or
    as often as fits into `budget` seconds."""
    found: dict[str, dict[str, list[float]]] = {e.contestant.name: {"device": [], "wall": []} for e in entries}

    def one_round() -> None:
        for entry in entries:
            times = found[entry.contestant.name]
            with entry.contestant.on(device):
                times["wall"].append(timing.wall_seconds(entry.call, device))
                times["device"].append(timing.device_seconds(entry.call, device, entry.queueing))

    with interleaving.without_garbage_collection():
        start = time.perf_counter()
        one_round()
        if rounds is None:
            rounds = interleaving.rounds_within(budget, time.perf_counter() - start, FEWEST, MOST)
        for _ in range(rounds - 1):
            one_round()
    return {
        name: {kind: interleaving.summarise(seconds)._asdict() for kind, seconds in times.items()}
        for name, times in found.items()
    }


def _prepared(problem: Problem, contestant: Contestant, device: torch.device) -> tuple[Runner, Row]:
    module = contestant.prepare(problem.network, problem.training)
    return problem.runner(contestant, module), {"status": "ok", **contestant.settings(device)}


def _beside(problem: Problem, truth: Answer, device: torch.device, say: Say, key: str) -> list[Entry]:
    """What a compiled contestant is timed in turns with: ours, as its users get it."""
    ours = next(c for c in baselines.contestants(device) if c.backend == "auto")
    entry = attempt(functools.partial(admit, problem, ours, truth, device), device, say, key)
    return [entry] if isinstance(entry, Entry) else []


def _rates(problem: Problem, contestant: Contestant, times: dict[str, Any]) -> Row:
    moved = problem.moved(contestant.numerics.dtype.itemsize)
    return {
        **times,
        "sequences": problem.sequences,
        "dense_flop": problem.flop,
        "sequences_per_second": problem.sequences / times["wall"]["median"],
        "dense_flop_per_second": problem.flop / times["device"]["median"],
        "byte_per_second": moved and moved / times["device"]["median"],
    }


def _key(workload: str, contestant: str) -> str:
    return f"{workload} | {contestant}"
