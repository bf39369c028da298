"""The stages: their jobs, and what runs them in the working process."""

from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu import check, compare, profiling, tune
from benchmarks.gpu.supervise import Job, Say

STAGES = ("check", "tune", "bench", "profile")


class Setup(NamedTuple):
    """Where and in which sizes. traces: the folder for chrome traces, if they are wanted."""

    device: str
    tiny: bool
    traces: Path | None = None


def jobs(stage: str, setup: Setup) -> list[Job]:
    """A stage's jobs, most important first."""
    of_stage = {"check": check.jobs, "tune": tune.jobs, "bench": compare.jobs, "profile": profiling.jobs}
    return of_stage[stage](torch.device(setup.device), setup.tiny)


def execute(job: Job, say: Say, setup: Setup) -> None:
    """Do a job of any stage."""
    device = torch.device(setup.device)
    if job.stage == "check":
        check.execute(job, say, device, setup.tiny)
    elif job.stage == "tune":
        tune.execute(job, say, device, setup.tiny)
    elif job.stage == "bench":
        compare.execute(job, say, device, setup.tiny)
    else:
        profiling.execute(job, say, device, setup.tiny, setup.traces)
