"""Time and memory of one call, on the device and for its caller."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Call = Callable[[], Any]

CYCLES_PER_SECOND = 2e9
# Seconds for which the device is kept busy at most, while a call's kernels are queued behind.
LONGEST_DELAY = 0.05


class Memory(NamedTuple):
    """Bytes above what was held before the call, at its peak: in tensors, and as taken from the device."""

    allocated: int
    reserved: int


def synchronise(device: torch.device) -> None:
    """Wait until the device has done everything; errors of earlier kernels are raised here."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall_seconds(call: Call, device: torch.device) -> float:
    """Seconds from the call until all its work is done."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def device_seconds(call: Call, device: torch.device, queueing: float) -> float:
    """The device's own time for the call's work.

    The device waits `queueing` seconds, which the caller needs to queue everything, before the first event: between the
    events it then runs kernels and never waits for Python. On a CPU it is the wall time.
    """
    if device.type != "cuda":
        return wall_seconds(call, device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(int(min(1.5 * queueing, LONGEST_DELAY) * CYCLES_PER_SECOND))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last)) / 1e3


def queueing_seconds(call: Call, device: torch.device) -> float:
    """Seconds that the caller needs until everything is queued."""
    synchronise(device)
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    synchronise(device)
    return seconds


def peak_memory(call: Call, device: torch.device) -> Memory | None:
    """Peak memory of one call, its result included; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronise(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    result = call()
    synchronise(device)
    del result
    return Memory(
        torch.cuda.max_memory_allocated(device) - allocated, torch.cuda.max_memory_reserved(device) - reserved
    )
