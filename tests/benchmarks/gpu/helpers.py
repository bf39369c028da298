"""Runs of the GPU kit on the CPU, in tiny sizes."""

import json
import time
from pathlib import Path

import torch

from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import (
    supervise,
)
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.supervise import Job, Reporter, Row

REPOSITORY = Path(__file__).parents[3]


CPU = torch.device("cpu")


IDENTITY = {"kit": "k", "torch": "2", "device": "d", "tiny": True}


FLOAT32 = Numerics(torch.float32)


class Recorder(Reporter):
    """Keeps the rows of a job."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def started(self, key: str) -> None:
        pass

    def finished(self, key: str, row: Row) -> None:
        self.rows[key] = row


def run(out: Path, *arguments: str) -> int:
    return kit.main(["--out", str(out), "--device", "cpu", "--tiny", *arguments])


def rows_in(out: Path) -> dict[str, dict[str, Row]]:
    rows: dict[str, dict[str, Row]] = json.loads((out / "results.json").read_text())["rows"]
    return rows


def supervised(
    execute: supervise.Execute, jobs: list[tuple[str, ...]], folder: Path, limit: float = 30, budget: float = 60
) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    listed = [Job("bench", f"job {i}", keys, limit) for i, keys in enumerate(jobs)]
    supervise.supervise(listed, execute, rows.__setitem__, time.monotonic() + budget, folder / "log.txt")
    return rows


def statuses(rows: dict[str, Row]) -> dict[str, str]:
    return {key: row["status"] for key, row in rows.items()}


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}
