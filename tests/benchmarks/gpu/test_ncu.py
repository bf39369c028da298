"""Metrics of Nsight Compute and of torch's profiler are read."""

import sys
from pathlib import Path

import pytest

from benchmarks.gpu import ncu, programs, stage_tables
from tests.benchmarks.gpu.helpers import CPU, Recorder

CSV = """\
==PROF== Connected to process 7
done: arme 32-32, bfloat16
"ID","Process ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread"
"","","","us","register/thread"
"0","7","void hstl::forward<hstl::Bfloat16>(hstl::Parameters)","1,204.5","168"
"1","7","void hstl::scan(hstl::Parameters)","2.5","n/a"
"""


def test_comma_separated_metrics_are_read() -> None:
    first, second = ncu.read(CSV.splitlines())
    assert first == {
        "name": "void hstl::forward<hstl::Bfloat16>(hstl::Parameters)",
        "gpu__time_duration.sum us": 1204.5,
        "launch__registers_per_thread register/thread": 168.0,
    }
    assert second["launch__registers_per_thread register/thread"] == "n/a"
    assert ncu.read(["==ERROR== Failed to initialize the profiler"]) == []


def test_kernels_of_a_trace_are_read() -> None:
    kernel = {
        "cat": "kernel",
        "name": "hstl::forward",
        "dur": 12.5,
        "args": {"registers per thread": 168, "block": [256, 1, 1], "stream": 7},
    }
    found = ncu.of_trace({"traceEvents": [kernel, {"cat": "cpu_op", "name": "aten::mm", "dur": 3}]})
    assert found == [{"name": "hstl::forward", "microseconds": 12.5, "registers per thread": 168, "block": [256, 1, 1]}]


def test_only_metrics_that_the_gpu_has_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def run(command: list[str], seconds: float) -> object:
        given.append(command)
        known = "gpu__time_duration  counter  us\nlts__t_bytes  counter  byte\n"
        return programs.subprocess.CompletedProcess(command, 0, known if len(given) == 1 else CSV, "")

    monkeypatch.setattr(programs, "run", run)
    row = ncu._by_ncu(["ncu"], ["target"])
    assert (row["status"], len(row["kernels"])) == ("ok", 2)
    asked = given[1][given[1].index("--metrics") + 1].split(",")
    assert asked == ["gpu__time_duration.sum", "lts__t_bytes.sum.per_second", *ncu.LAUNCH]
    assert given[1][-1] == "target"


@pytest.mark.slow
def test_without_ncu_the_profiler_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        raise programs.MissingProgram(f"{name} is not installed")

    monkeypatch.setattr(programs, "find", find)
    key = f"{ncu.jobs(CPU, True)[0].name} | hstl_fast reference"
    reporter = Recorder()
    ncu.execute(ncu.jobs(CPU, True)[0]._replace(keys=(key,)), reporter, CPU, rehearse=False)
    (row,) = reporter.rows.values()
    assert row["ncu"] == "ncu is not installed"
    assert (row["status"], row["reason"]) == ("unavailable", "torch's profiler recorded no kernel")


def test_a_program_that_fails_is_a_row(tmp_path: Path) -> None:
    target = [sys.executable, "-c", "raise SystemExit('out of memory')"]
    assert ncu._by_profiler(target) == {"status": "failed", "reason": "out of memory"}


def test_kernels_reach_the_table() -> None:
    kernels = [
        {"name": "slow", "gpu__time_duration.sum us": 9.0},
        {"name": "slower", "gpu__time_duration.sum us": 10.0},
    ]
    rows = {
        "arme 32-32 | hstl_fast cuda": {"status": "ok", "source": "ncu", "kernels": kernels},
        "arme 32-64 | hstl_fast cuda": {"status": "unavailable", "reason": "no kernel", "ncu": "it is not installed"},
    }
    lines = list(stage_tables.ncu(rows))
    assert next(i for i, line in enumerate(lines) if "slower" in line) < lines.index(
        next(line for line in lines if "cuda: slow " in line)
    )
    assert lines[-1] == "- arme 32-64 | hstl_fast cuda: no ncu, it is not installed"
