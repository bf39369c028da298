"""The stages: their jobs, and what runs them in the working process."""

from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu import check, cold, compare, graphs, micro, ncu, profiling, sanitizer, tune
from benchmarks.gpu.supervise import Job, Reporter

# In the order of running, each with its share of a run's time: what a stage leaves goes to those behind it.
SHARES = {
    "check": 4,
    "micro": 1,
    "sanitizer": 2,
    "tune": 2,
    "cold": 1,
    "graphs": 1,
    "bench": 7,
    "ncu": 1,
    "profile": 1,
}
STAGES = tuple(SHARES)
# Stages whose rows are all about this package or the kit's own program.
OWN = ("check", "micro", "sanitizer", "tune", "cold", "graphs", "ncu")


class Setup(NamedTuple):
    """The device and the sizes.

    traces: the folder for chrome traces, None where none are wanted. rehearse: whether stand-ins take the places of the
    programs that need a GPU.
    """

    device: str
    tiny: bool
    traces: Path | None = None
    rehearse: bool = False


def jobs(stage: str, setup: Setup) -> list[Job]:
    """A stage's jobs, most important first."""
    device = torch.device(setup.device)
    if stage == "check":
        return check.jobs(device)
    of_stage = {
        "micro": micro.jobs,
        "sanitizer": sanitizer.jobs,
        "tune": tune.jobs,
        "cold": cold.jobs,
        "graphs": graphs.jobs,
        "bench": compare.jobs,
        "ncu": ncu.jobs,
        "profile": profiling.jobs,
    }
    needs_programs = stage in ("micro", "sanitizer", "ncu")
    return (
        [] if needs_programs and device.type != "cuda" and not setup.rehearse else of_stage[stage](device, setup.tiny)
    )


def execute(job: Job, reporter: Reporter, setup: Setup) -> None:
    """Do a job of any stage."""
    device = torch.device(setup.device)
    if job.stage == "check":
        check.execute(job, reporter, device)
    elif job.stage in ("micro", "sanitizer", "ncu"):
        by_program = {"micro": micro.execute, "sanitizer": sanitizer.execute, "ncu": ncu.execute}
        by_program[job.stage](job, reporter, device, setup.rehearse)
    elif job.stage == "profile":
        profiling.execute(job, reporter, device, setup.tiny, setup.traces)
    else:
        of_stage = {"tune": tune.execute, "cold": cold.execute, "graphs": graphs.execute, "bench": compare.execute}
        of_stage[job.stage](job, reporter, device, setup.tiny)
