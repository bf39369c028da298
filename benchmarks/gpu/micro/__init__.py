"""Stage micro: the micro-benchmarks of this folder, which decide the design of the kernels in CUDA C++.

They are one program, `micro`, which nvcc compiles from the .cu files here and the headers in csrc/cuda. It needs
neither Python nor torch, nor a CUDA library at run time, so that it can be built on one machine and run on another:

    python -m benchmarks.gpu.micro     builds it into build/gpu-micro, for Ampere (with PTX) and Hopper

cases.json lists the cases with what the model of the design predicts for them, as `micro list` prints it.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import environment, programs
from benchmarks.gpu.micro.build import CannotCompile, built
from benchmarks.gpu.supervise import Job, Reporter, Row

CASES = Path(__file__).with_name("cases.json")
STAGE = "micro"
# Seconds for one case, of which the program itself takes at most 20; the first may wait for the compiler.
LONGEST = 200.0


@functools.cache
def cases() -> dict[str, dict[str, Any]]:
    """Unit, prediction and model of every case, by name."""
    return {case["name"]: case for case in json.loads(CASES.read_text(encoding="utf-8"))}


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """One job with all cases."""
    return [Job(STAGE, STAGE, tuple(cases()), LONGEST)]


def execute(job: Job, reporter: Reporter, device: torch.device, rehearse: bool) -> None:
    """Measure the cases; one at which the program ends costs its row alone."""
    left = list(job.keys)
    reporter.started(left[0])
    try:
        command = programs.module("stand_ins", "micro") if rehearse else [str(built(capability(device)))]
    except (programs.MissingProgram, CannotCompile) as error:
        status = "unavailable" if isinstance(error, programs.MissingProgram) else "failed"
        for key in left:
            reporter.finished(key, {"status": status, "reason": str(error)})
        return
    clocks = environment.clocks(device)
    while left:
        reporter.started(left[0])
        told = False  # whether the program has said itself that it ends, and where
        with programs.lines([*command, "run", *left]) as (printed, ending):
            for name, row in rows(printed):
                left.remove(name)
                reporter.finished(name, {**row, "nvidia_smi": clocks})
                told = row["status"] == "failed"
                if left:
                    reporter.started(left[0])
            if left and not told:
                reporter.finished(left.pop(0), {"status": "failed", "reason": ending.reason()})


def rows(printed: Iterator[str]) -> Iterator[tuple[str, Row]]:
    """Name and row of every line of the program."""
    for line in printed:
        row = json.loads(line)
        name = row.pop("name")
        if "rate" in row:
            row["rate_over_predicted"] = row["rate"] / row["predicted"]
        yield name, row


def rate(value: float, unit: str) -> str:
    """A rate in words: TFLOP/s or TB/s."""
    return f"{value / 1e12:.4g} T{unit.replace('byte', 'B')}"


def capability(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of the GPU to build for; None without one."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None
