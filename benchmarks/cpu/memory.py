"""Memory of one step above a prepared network and its inputs, measured in a process of its own for every rival:
`python -m benchmarks.cpu.memory RIVAL embedding casia-b people 30` or `... RIVAL training_step casia-b walkers`
prints it in bytes."""

import ctypes
import gc
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.core import machine
from benchmarks.cpu import workloads
from benchmarks.cpu.baselines import RIVALS, Rival, Unavailable, arranged, named
from benchmarks.cpu.workloads import Workload
from hstl_fast import PRESETS
from hstl_fast.backends.cpu import allocator
from hstl_fast.names import one_of

LONGEST = 300
"""Seconds that one measurement may take, compilation included."""
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak(NamedTuple):
    """Bytes, or why there are none."""

    bytes: int | None
    missing: str | None = None


def peak(recipe: Sequence[str], rival: str) -> Peak:
    """Of one step of the workload `recipe` by this rival, in a new process with this one's number of threads."""
    if not PEAK_RESET.exists():
        return Peak(None, "needs Linux")
    command = [sys.executable, "-m", "benchmarks.cpu.memory", rival, *recipe]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    try:
        run = subprocess.run(
            command,
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Peak(None, f"not measured within {LONGEST} s")
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return Peak(None, machine.anonymous(last))
    return Peak(int(run.stdout.split()[-1]))


def workload_of(recipe: Sequence[str]) -> Workload:
    """The workload that `Workload.memory` names: "embedding", preset, silhouettes and lengths; or "training_step",
    preset and silhouettes."""
    kind, preset, source, *lengths = recipe
    one_of(preset, PRESETS, "preset")
    if one_of(kind, ("embedding", "training_step"), "workload") == "training_step":
        return workloads.training_step(preset, source)
    return workloads.embedding(preset, [int(t) for t in lengths], source)


def of_step(workload: Workload, rival: Rival) -> int:
    """Bytes that this process grows by, at most, during a step that is not its first.

    What a rival keeps from call to call counts where it can be given back before: it is part of every step's need.
    """
    network = rival.prepare(workload.network, workload.training)
    inputs = arranged(workload.inputs, rival.layout)
    with rival.context():
        workload.step(network, inputs)
        release = getattr(network, "release", None)
        if release is not None:
            release()
        _settle()
        PEAK_RESET.write_text("5")
        before = _status("VmRSS")
        workload.step(network, inputs)
    return max(0, _status("VmHWM") - before)


def _settle() -> None:
    """Give free memory back to the system, so that it is not taken for the network's."""
    gc.collect()
    allocator._blocks.clear()
    ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    try:
        (chosen,) = named(one_of(name, [rival.name for rival in RIVALS], "rival"))
        print(of_step(workload_of(arguments), chosen))
    except (Unavailable, ValueError, OSError) as error:
        sys.exit(f"{error}")
