"""Memory of one step above a prepared network and its inputs, measured in a process of its own.

`python -m benchmarks.cpu.memory IMPLEMENTATION embedding casia-b people 30` or `... training_step casia-b walkers`
prints it in bytes.
"""

import ctypes
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.core.text import anonymous
from benchmarks.cpu import workloads
from benchmarks.cpu.implementations import IMPLEMENTATIONS, Implementation, arranged, named
from benchmarks.cpu.runtimes import Unavailable
from benchmarks.cpu.workloads import Workload
from hstl_fast import PRESETS
from hstl_fast.backends.cpu import allocator
from hstl_fast.names import one_of

ROOT = Path(__file__).parents[2]
# Seconds that one measurement may take, compilation included.
LONGEST = 300
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak(NamedTuple):
    """Bytes, or the reason why there are none."""

    bytes: int | None
    missing: str | None = None


def peak(recipe: Sequence[str], implementation: str) -> Peak:
    """Peak memory of one step of the workload `recipe`, in a new process with this one's number of threads."""
    if not PEAK_RESET.exists():
        return Peak(None, "needs Linux")
    command = [sys.executable, "-m", "benchmarks.cpu.memory", implementation, *recipe]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return Peak(None, f"not measured within {LONGEST} s")
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return Peak(None, anonymous(last))
    return Peak(int(run.stdout.split()[-1]))


def workload_of(recipe: Sequence[str]) -> Workload:
    """The workload that `Workload.memory` names: "embedding", preset, silhouettes and lengths; or "training_step",
    preset and silhouettes."""
    kind, preset, source, *lengths = recipe
    one_of(preset, PRESETS, "preset")
    if one_of(kind, ("embedding", "training_step"), "workload") == "training_step":
        return workloads.training_step(preset, source)
    return workloads.embedding(preset, [int(t) for t in lengths], source)


def of_step(workload: Workload, implementation: Implementation) -> int:
    """Bytes that this process grows by, at most, during a step that is not its first.

    What an implementation keeps from call to call is released before, where it can be: it is part of every step's need.
    """
    network = implementation.prepare(workload.network, workload.training)
    inputs = arranged(workload.inputs, implementation.layout)
    with implementation.context():
        workload.step(network, inputs)
        release = getattr(network, "release", None)
        if release is not None:
            release()
        return growth(lambda: workload.step(network, inputs))


def growth(call: Callable[[], object]) -> int:
    """Bytes that this process grows by, at most, during the call."""
    _return_free_memory()
    PEAK_RESET.write_text("5")
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _return_free_memory() -> None:
    """Give free memory back to the system, so that it is not taken for the network's."""
    gc.collect()
    allocator._blocks.clear()  # not clear_caches, which would clear prepacked weights as well
    ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    try:
        (chosen,) = named(one_of(name, [known.name for known in IMPLEMENTATIONS], "implementation"))
        print(of_step(workload_of(arguments), chosen))
    except (Unavailable, ValueError, OSError) as error:
        sys.exit(f"{error}")
