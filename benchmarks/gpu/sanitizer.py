"""Stage sanitizer: compute-sanitizer over every operator of the backends with kernels, on small shapes."""

import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import torch

from benchmarks.core.text import anonymous
from benchmarks.gpu import implementations, programs
from benchmarks.gpu.supervise import Job, Reporter, Row

STAGE = "sanitizer"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Seconds for one tool on one backend.
LONGEST = 180.0
# Every tensor has memory of its own, so that a step over its end is seen.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
# The word that names a kernel of ours, by its namespace or by its file.
OURS = "hstl"
# Reports that are kept of each run.
KEPT = 5
_PREFIX = re.compile(r"^========= ?")
_NO_REPORTS = ("COMPUTE-SANITIZER", "ERROR SUMMARY", "RACECHECK SUMMARY", "LEAK SUMMARY", "Target application", "Saved")


class Found(NamedTuple):
    """The reports in a log about kernels of ours and about others, and whether the tool came to its end."""

    ours: list[str]
    others: int
    finished: bool


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job for each backend and tool."""
    names = implementations.with_kernels(device)
    return [Job(STAGE, tool, (f"{tool} | hstl_fast {name}",), LONGEST + 20) for name in names for tool in TOOLS]


def execute(job: Job, reporter: Reporter, device: torch.device, rehearse: bool) -> None:
    """Run one tool over one backend."""
    (key,) = job.keys
    reporter.started(key)
    backend = key.removeprefix(f"{job.name} | hstl_fast ")
    try:
        tool = programs.module("stand_ins", "compute-sanitizer") if rehearse else [programs.find("compute-sanitizer")]
        reporter.finished(key, checked([*tool, "--tool", job.name], backend, device))
    except programs.MissingProgram as error:
        reporter.finished(key, {"status": "unavailable", "reason": str(error)})
    except subprocess.TimeoutExpired:
        reporter.finished(key, {"status": "stopped", "reason": f"stopped after {LONGEST:.0f} seconds"})


def checked(tool: list[str], backend: str, device: torch.device) -> Row:
    """The row of a tool's run: wrong if there is a report about a kernel of ours."""
    target = programs.module("drive", backend, "--device", device.type)
    done = programs.run([*tool, "--print-limit", "100", *target], LONGEST, ENVIRONMENT)
    log = done.stdout + done.stderr
    found = reports(log)
    row: Row = {"cases": log.count("done: "), "reports": len(found.ours), "reports_on_others": found.others}
    if found.ours:
        return {**row, "status": "wrong", "reason": found.ours[0], "first": found.ours[:KEPT]}
    if not found.finished or done.returncode or not row["cases"]:
        return {**row, "status": "failed", "reason": programs.last_line(log) or f"exit code {done.returncode}"}
    return {**row, "status": "ok"}


def reports(log: str) -> Found:
    """The reports of a log, which are paragraphs of lines that begin with "=========": each in one line."""
    ours, others, finished = [], 0, False
    for paragraph in _paragraphs(log):
        finished |= any("SUMMARY" in line for line in paragraph)
        paragraph = [line for line in paragraph if not line.startswith(_NO_REPORTS)]
        if not paragraph:
            continue
        if any(OURS in line for line in paragraph):
            ours.append(anonymous("; ".join(paragraph[:3]))[:300])
        else:
            others += 1
    return Found(ours, others, finished)


def _paragraphs(log: str) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in log.splitlines():
        text = _PREFIX.sub("", line) if _PREFIX.match(line) else ""
        if text.strip():
            paragraph.append(text.strip())
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph
