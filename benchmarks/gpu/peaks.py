"""The device's peaks, measured in the same run: copies and matrix products, on random data."""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.gpu import environment, timing
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.supervise import Row

REPEATS = 20


class Sizes(NamedTuple):
    """copied: bytes of a copy. rows: those of the square matrices multiplied."""

    copied: int
    rows: int


FULL = Sizes(copied=2 * 2**30, rows=8192)
TINY = Sizes(copied=2**20, rows=128)

PRODUCTS = {
    "bfloat16 product": Numerics(torch.bfloat16),
    "float16 product": Numerics(torch.float16),
    "tf32 product": Numerics(torch.float32, tf32=True),
    "float32 product": Numerics(torch.float32),
}
COPY, PINNED = "device copy", "copy from pinned host memory"
NAMES = (COPY, *PRODUCTS, PINNED)


def measure(name: str, device: torch.device, tiny: bool) -> Row:
    """One peak: the rate of the fastest and of the median repeat."""
    sizes = TINY if tiny else FULL
    if name in PRODUCTS:
        return _product(PRODUCTS[name], sizes.rows, device)
    if name == PINNED and device.type != "cuda":
        return {"status": "unavailable", "reason": "there is no device to copy to"}
    return _copy(sizes.copied, device, from_host=name == PINNED)


def _copy(size: int, device: torch.device, from_host: bool) -> Row:
    target = torch.empty(size, dtype=torch.uint8, device=device)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device="cpu" if from_host else device)
    if from_host:
        source = source.pin_memory()
    moved = size if from_host else 2 * size
    return _rates(lambda: target.copy_(source, non_blocking=True), moved, "byte_per_second", device)


def _product(numerics: Numerics, rows: int, device: torch.device) -> Row:
    a, b = (torch.randn(rows, rows, dtype=numerics.dtype, device=device) for _ in range(2))
    with numerics.on(device):
        row = _rates(lambda: torch.mm(a, b), 2 * rows**3, "flop_per_second", device)
    return {**row, "rows": rows, "nvidia_smi": environment.clocks(device)}


def _rates(call: Callable[[], object], amount: int, unit: str, device: torch.device) -> Row:
    for _ in range(3):
        call()
    seconds = [timing.device_seconds(call, device, queueing=1e-4) for _ in range(REPEATS)]
    return {"status": "ok", unit: amount / min(seconds), f"median_{unit}": amount / median(seconds)}
