"""Stage profile: which kernels the time goes to, for a step of training and a large batch of embeddings."""

import functools
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import baselines, suite, timing
from benchmarks.gpu.baselines import Contestant
from benchmarks.gpu.guarded import attempt
from benchmarks.gpu.suite import Workload
from benchmarks.gpu.supervise import Job, Row, Say

CALLS = 3
"""Profiled after as many that are not."""
KERNELS = 30
"""So many are listed; the rest is one sum."""
LONGEST_NAME = 160


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job for each workload and contestant, those that compile last."""
    everybody = sorted(baselines.contestants(device), key=lambda c: c.compiled)
    return [
        Job("profile", workload.name, (f"{workload.name} | {contestant.name}",), 300 if contestant.compiled else 90)
        for compiled in (False, True)
        for workload in suite.profiled(tiny)
        for contestant in everybody
        if contestant.compiled == compiled
    ]


def execute(job: Job, say: Say, device: torch.device, tiny: bool, traces: Path | None) -> None:
    """Profile one contestant on one workload; its chrome trace goes to the folder `traces`, if there is one."""
    workload = suite.find(job.name, tiny)
    for contestant in baselines.contestants(device):
        key = f"{workload.name} | {contestant.name}"
        if key in job.keys:
            say.doing(key)
            say.row(key, attempt(functools.partial(_profile, workload, contestant, device, traces), device, say, key))


def shares(events: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """Kernels by their total time, from (name, seconds) of each run of one: calls, seconds, share of all."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for name, spent in events:
        seconds[name] += spent
        calls[name] += 1
    total = sum(seconds.values())
    ranked = sorted(seconds, key=lambda name: -seconds[name])
    listed = [
        {
            "name": name[:LONGEST_NAME],
            "calls": calls[name],
            "seconds": seconds[name],
            "share": seconds[name] / total if total else 0.0,
        }
        for name in ranked[:KERNELS]
    ]
    rest = sum(seconds[name] for name in ranked[KERNELS:])
    return {"kernel_seconds": total, "kernels": listed, "seconds_of_others": rest, "distinct_kernels": len(ranked)}


def _profile(workload: Workload, contestant: Contestant, device: torch.device, traces: Path | None) -> Row:
    problem = workload.build(device)
    runner = problem.runner(contestant, contestant.prepare(problem.network, problem.training))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with contestant.on(device):
        for _ in range(CALLS):
            runner.step()
        timing.synchronise(device)
        with profile(activities=activities) as recorded:
            start = time.perf_counter()
            for _ in range(CALLS):
                runner.step()
            timing.synchronise(device)
            wall = time.perf_counter() - start
    if traces is not None:
        traces.mkdir(exist_ok=True)
        recorded.export_chrome_trace(str(traces / f"{workload.name} {contestant.name}.json".replace("/", "-")))
    found = shares(_kernels(recorded, device))
    row: Row = {"status": "ok", **contestant.settings(device), "steps": CALLS, "wall_seconds": wall, **found}
    if found["kernels"]:
        return row
    return {**row, "status": "unavailable", "reason": "no kernel was recorded: CUPTI does not work here"}


def _kernels(recorded: Any, device: torch.device) -> list[tuple[str, float]]:
    """Every kernel, copy and fill of the device; on a CPU every ATen operator without those it calls."""
    if device.type != "cuda":
        return [(event.name, event.self_cpu_time_total / 1e6) for event in recorded.events()]
    kernels = DeviceType.CUDA
    return [
        (event.name, event.time_range.elapsed_us() / 1e6)
        for event in recorded.events()
        if event.device_type == kernels and not getattr(event, "is_user_annotation", False)
    ]
