"""The stages: their jobs, and what runs them in the working process."""

from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu import check, compare, profiling, tune
from benchmarks.gpu.supervise import Job, Reporter

STAGES = ("check", "tune", "bench", "profile")


class Setup(NamedTuple):
    """The device and the sizes. traces: the folder for chrome traces, None where none are wanted."""

    device: str
    tiny: bool
    traces: Path | None = None


def jobs(stage: str, setup: Setup) -> list[Job]:
    """A stage's jobs, most important first."""
    device = torch.device(setup.device)
    if stage == "check":
        return check.jobs(device)
    of_stage = {"tune": tune.jobs, "bench": compare.jobs, "profile": profiling.jobs}
    return of_stage[stage](device, setup.tiny)


def execute(job: Job, reporter: Reporter, setup: Setup) -> None:
    """Do a job of any stage."""
    device = torch.device(setup.device)
    if job.stage == "check":
        check.execute(job, reporter, device)
    elif job.stage == "tune":
        tune.execute(job, reporter, device, setup.tiny)
    elif job.stage == "bench":
        compare.execute(job, reporter, device, setup.tiny)
    else:
        profiling.execute(job, reporter, device, setup.tiny, setup.traces)
