"""What the machine is and the most it does, measured beside the results."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.interleave import timed
from hstl_fast import info

SIZE = 2048
"""Rows and columns of the matrices multiplied."""
COPIED = 64 * 2**20
"""Numbers in the tensor copied: 256 MiB, more than any cache holds."""


def description() -> dict[str, Any]:
    """Versions, processor, threads and instruction set, as `hstl-fast info` knows them."""
    return {
        **info.collect(),
        "torch_build": torch.__config__.show(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def peaks(repeats: int = 7) -> dict[str, float]:
    """The machine's own best: a float32 matrix product, and a copy (bytes read and written)."""
    a, b, c = torch.randn(3, SIZE, SIZE)
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    return {
        "float32_gflop_per_second": 2 * SIZE**3 / _best(lambda: torch.mm(a, b, out=c), repeats) / 1e9,
        "copy_gbyte_per_second": 2 * 4 * COPIED / _best(lambda: target.copy_(source), repeats) / 1e9,
    }


def _best(call: Callable[[], object], repeats: int) -> float:
    call()
    return min(timed(call) for _ in range(repeats))
