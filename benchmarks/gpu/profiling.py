"""Stage profile: the kernels that take the time of a training step and of a large batch of embeddings."""

import functools
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import compare, implementations, suite, timing
from benchmarks.gpu.guarded import guarded
from benchmarks.gpu.implementations import Implementation
from benchmarks.gpu.suite import Entry
from benchmarks.gpu.supervise import Job, Reporter, Row

# Calls that are profiled, after as many that are not.
CALLS = 3
# Kernels that are listed; the rest is one sum.
KERNELS = 30
LONGEST_NAME = 160


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job for each workload and implementation, those that compile last."""
    return [
        Job("profile", entry.name, (_key(entry, implementation),), 300 if implementation.compiled else 90)
        for compiled in (False, True)
        for entry in suite.profiled(tiny)
        for implementation in compare.taking_part(entry, device)
        if implementation.compiled == compiled and implementation.runtime is None
    ]


def execute(job: Job, reporter: Reporter, device: torch.device, tiny: bool, traces: Path | None) -> None:
    """Profile one implementation on one workload; its chrome trace goes to the folder `traces`, if there is one."""
    entry = suite.find(job.name, tiny)
    for implementation in implementations.implementations(device):
        key = _key(entry, implementation)
        if key in job.keys:
            reporter.started(key)
            row = guarded(functools.partial(_profile, entry, implementation, device, traces), device, reporter, key)
            reporter.finished(key, row)


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


def _profile(entry: Entry, implementation: Implementation, device: torch.device, traces: Path | None) -> Row:
    workload = entry.build(device)
    runner = workload.runner(implementation, implementation.prepare(workload.network, workload.training))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with implementation.on(device):
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
        recorded.export_chrome_trace(str(traces / f"{entry.name} {implementation.name}.json".replace("/", "-")))
    found = shares(_kernels(recorded, device))
    row: Row = {"status": "ok", **implementation.settings(device), "steps": CALLS, "wall_seconds": wall, **found}
    if found["kernels"]:
        return row
    return {**row, "status": "unavailable", "reason": "no kernel was recorded: CUPTI does not work here"}


def _key(entry: Entry, implementation: Implementation) -> str:
    return f"{entry.name} | {implementation.name}"


def _kernels(recorded: Any, device: torch.device) -> list[tuple[str, float]]:
    """Every kernel, copy and fill of the device; on a CPU every ATen operator without those that it calls."""
    if device.type != "cuda":
        return [(event.name, event.self_cpu_time_total / 1e6) for event in recorded.events()]
    kernels = DeviceType.CUDA
    return [
        (event.name, event.time_range.elapsed_us() / 1e6)
        for event in recorded.events()
        if event.device_type == kernels and not getattr(event, "is_user_annotation", False)
    ]
