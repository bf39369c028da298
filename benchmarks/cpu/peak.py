"""The most that this machine does, measured in the same run as the results.

Arithmetic has two measures: multiply-adds from registers by a small native function (`peak.cpp`, compiled on demand),
and the best product that any library reached in the run. The peak is the larger one; without a compiler it is the
second. `torch.mm` alone would be no measure: on some processors convolutions run at more than twice its rate.
"""

import ctypes
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.core.interleaving import timed
from benchmarks.core.names import IN_CLIPS, ONE_THREAD, OURS
from csrc import build

SOURCE = Path(__file__).with_name("peak.cpp")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=fast")
# The flags for all instructions of this machine; the first that the compiler knows is taken.
NATIVE = ("-march=native", "-mcpu=native")
# Seconds of one run of the multiply-adds: long against the start of threads.
LONG_ENOUGH = 0.03
# Rows and columns of the matrices multiplied.
SIZE = 2048
# Numbers in the tensor copied: 256 MiB, more than any cache holds.
COPIED = 64 * 2**20
DTYPES = ("float32", "bfloat16")

Figures = dict[str, float | str | None]


class Unavailable(Exception):
    """There are no multiply-adds to measure with; the message says why."""


class Run(NamedTuple):
    """One run of the multiply-adds: operations, a product and a sum counted one by one, and the last numbers.

    ends: `[threads, numbers]`.
    """

    operations: int
    ends: np.ndarray


class MultiplyAdds:
    """The compiled functions of `peak.cpp`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.numbers: int = library.peak_numbers()

    def operations(self, dtype: str) -> int:
        """Operations on each number in a round; 0 where this machine has no instructions for the type."""
        count: int = getattr(self._library, f"peak_{dtype}_operations")()
        return count

    def run(self, dtype: str, threads: int, rounds: int, starts: np.ndarray, a: float, b: float) -> Run:
        """Repeat x = x * a + b (in bfloat16: x = x + 2 * a * b) on the float32 numbers `starts` in every thread."""
        starts = np.ascontiguousarray(starts, dtype=np.float32)
        if starts.shape != (self.numbers,):
            raise ValueError(f"starts must have the shape ({self.numbers},), got {starts.shape}")
        ends = np.full((threads, self.numbers), np.nan, dtype=np.float32)
        getattr(self._library, f"peak_{dtype}")(
            ctypes.c_int(threads),
            ctypes.c_int64(rounds),
            starts.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_float(a),
            ctypes.c_float(b),
            ends.ctypes.data_as(ctypes.c_void_p),
        )
        return Run(threads * rounds * self.numbers * self.operations(dtype), ends)


@functools.cache
def multiply_adds() -> MultiplyAdds:
    """The functions, compiled once per process; raises Unavailable without a compiler that can do it."""
    compiler = _compiler()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "peak.so")
        for native in (*NATIVE, None):
            flags = [*FLAGS, *([native] if native else [])]
            command = [*compiler, *flags, str(SOURCE), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return MultiplyAdds(ctypes.CDLL(str(output)))
    raise Unavailable(f"{Path(compiler[0]).name} does not compile {SOURCE.name}")


def measure(repeats: int = 7) -> Figures:
    """Multiply-adds from registers, `torch.mm` as the first of the libraries' products, and a copy."""
    figures: Figures = {"multiply_adds_missing": None}
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    for dtype in DTYPES:
        exists = dtype == "float32" or bfloat16
        try:
            figures[f"{dtype}_multiply_adds_gflop_per_second"] = _multiply_add_rate(dtype, repeats) if exists else None
        except Unavailable as why:
            figures[f"{dtype}_multiply_adds_gflop_per_second"] = None
            figures["multiply_adds_missing"] = str(why)
        figures[f"{dtype}_library_gflop_per_second"] = _product(getattr(torch, dtype), repeats) if exists else None
        figures[f"{dtype}_library"] = f"torch.mm of {SIZE} x {SIZE}" if exists else None
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    figures["copy_gbyte_per_second"] = 2 * 4 * COPIED / _best(lambda: target.copy_(source), repeats) / 1e9
    return figures


def best(before: Mapping[str, Any], after: Mapping[str, Any]) -> Figures:
    """The higher of two measurements of each rate."""
    return {name: max(value, after[name] or 0) if isinstance(value, float) else value for name, value in before.items()}


def with_libraries(figures: Mapping[str, Any], comparisons: Iterable[Mapping[str, Any]]) -> Figures:
    """The figures with the best product that any other implementation reached in these comparisons.

    Products are counted as no direct convolution can do with fewer (`direct_flop`), over the fastest round.
    """
    found = dict(figures)
    for comparison in comparisons:
        for name, implementation in comparison["implementations"].items():
            dtype, fastest = implementation["dtype"], implementation.get("fastest")
            ours = name in (OURS, IN_CLIPS, ONE_THREAD)
            if ours or dtype not in DTYPES or not fastest or not comparison["direct_flop"]:
                continue
            rate = comparison["direct_flop"] / fastest / 1e9
            if rate > (found.get(f"{dtype}_library_gflop_per_second") or 0):
                found[f"{dtype}_library_gflop_per_second"] = rate
                found[f"{dtype}_library"] = f"{name}, {comparison['group']}: {comparison['workload']}"
    return found


def arithmetic(figures: Mapping[str, Any], dtype: str) -> float | None:
    """The peak in GFLOP/s: the larger of both measures, None where there is neither."""
    kinds = (f"{dtype}_multiply_adds_gflop_per_second", f"{dtype}_library_gflop_per_second")
    return max((figures[kind] for kind in kinds if figures.get(kind)), default=None)


def _multiply_add_rate(dtype: str, repeats: int) -> float | None:
    native, threads = multiply_adds(), torch.get_num_threads()
    if not native.operations(dtype):
        return None
    starts = np.linspace(0, 1, native.numbers, dtype=np.float32)

    def run(rounds: int) -> float:
        start = time.perf_counter()
        done = native.run(dtype, threads, rounds, starts, 0.5, 0.25)
        return done.operations / (time.perf_counter() - start)

    rounds = 2**12
    while (seconds := rounds * native.numbers * threads * native.operations(dtype) / run(rounds)) < LONG_ENOUGH:
        rounds *= max(2, min(64, round(LONG_ENOUGH / seconds)))
    return max(run(rounds) for _ in range(repeats)) / 1e9


def _product(dtype: torch.dtype, repeats: int) -> float:
    a, b, c = torch.randn(3, SIZE, SIZE).to(dtype)
    return 2 * SIZE**3 / _best(lambda: torch.mm(a, b, out=c), repeats) / 1e9


def _best(call: Callable[[], object], repeats: int) -> float:
    call()
    return min(timed(call) for _ in range(repeats))


def _compiler() -> list[str]:
    """The command of the compiler that the package is built with."""
    try:
        return build.find_compiler(build.Settings.from_environment())
    except (build.CannotBuildError, build.InvalidVariableError) as why:
        raise Unavailable(str(why)) from why
