"""Reports of compute-sanitizer about kernels of ours are faults; others are counted."""

import sys
from pathlib import Path

import pytest

from benchmarks.gpu import drive, programs, sanitizer
from tests.benchmarks.gpu.helpers import CPU

OURS = """\
========= COMPUTE-SANITIZER
done: arme 6-10, bfloat16
========= Invalid __global__ read of size 16 bytes
=========     at void hstl::forward<hstl::Bfloat16>(hstl::Parameters)+0x1a0 in /a/long/way/arme_forward.cu:123
=========     by thread (31,0,0) in block (0,0,0)
=========     Address 0x7f is out of bounds
=========
========= Error: Race reported between Write access at hstl::tile()+0x10 in tiles.cu:7
=========     and Read access at hstl::tile()+0x20
=========
========= Uninitialized __global__ memory read of size 4 bytes
=========     at void cublas::gemm()+0x1a0
=========
========= ERROR SUMMARY: 3 errors
"""
CLEAN = "========= COMPUTE-SANITIZER\ndone: network, float32\n========= RACECHECK SUMMARY: 0 hazards displayed\n"
REFUSED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported\n"


def test_reports_are_read() -> None:
    found = sanitizer.reports(OURS)
    assert (len(found.ours), found.others, found.finished) == (2, 1, True)
    assert found.ours[0].startswith("Invalid __global__ read of size 16 bytes; at void hstl::forward<")
    assert "/a/long/way" not in found.ours[0]
    assert sanitizer.reports(CLEAN) == ([], 0, True)
    assert not sanitizer.reports(REFUSED).finished


@pytest.mark.parametrize(
    ("log", "code", "status", "reason"),
    [
        (OURS, 1, "wrong", "Invalid __global__ read"),
        (CLEAN, 0, "ok", None),
        (CLEAN, 1, "failed", "RACECHECK SUMMARY"),
        (REFUSED, 0, "failed", "Device not supported"),
        (CLEAN.replace("done: ", ""), 0, "failed", "RACECHECK SUMMARY"),
    ],
)
def test_only_a_whole_run_without_reports_is_ok(
    tmp_path: Path, log: str, code: int, status: str, reason: str | None
) -> None:
    (tmp_path / "log").write_text(log)
    (tmp_path / "tool.py").write_text(f"print(open({str(tmp_path / 'log')!r}).read())\nraise SystemExit({code})\n")
    row = sanitizer.checked([sys.executable, str(tmp_path / "tool.py")], "cpu", CPU)
    assert row["status"] == status
    assert (reason or "") in row.get("reason", "")


@pytest.mark.slow
def test_the_driver_is_run_under_the_tool() -> None:
    tool = programs.module("stand_ins", "compute-sanitizer")
    row = sanitizer.checked([*tool, "--tool", "memcheck"], "reference", CPU)
    names = {case.name for case in drive.cases("reference", CPU, published=False)}
    assert row["status"] == "ok"
    assert row["cases"] >= len(names)


def test_every_backend_with_kernels_meets_every_tool() -> None:
    keys = [key for job in sanitizer.jobs(CPU, True) for key in job.keys]
    assert [key for key in keys if key.endswith("| hstl_fast cpu")] in (
        [f"{tool} | hstl_fast cpu" for tool in sanitizer.TOOLS],
        [],
    )
