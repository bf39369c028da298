"""First calls are timed in processes of their own, without and with what the first leaves on disk."""

import sys
from pathlib import Path

import pytest

from benchmarks.gpu import cold, drive, stage_tables
from tests.benchmarks.gpu.helpers import CPU, Recorder

# Says by its times whether an earlier process has left something in the cache.
COUNTS = """\
import json, os, pathlib
left = pathlib.Path(os.environ["TRITON_CACHE_DIR"], "left")
print(json.dumps({"first": float(left.exists())}))
left.touch()
"""


def test_the_second_process_finds_what_the_first_has_left(tmp_path: Path) -> None:
    row = cold.measured([sys.executable, "-c", COUNTS], str(tmp_path))
    assert row == {"status": "ok", "fresh": {"first": 0.0}, "cached": {"first": 1.0}}


def test_what_leaves_nothing_runs_once(tmp_path: Path) -> None:
    row = cold.measured([sys.executable, "-c", COUNTS.replace("left.touch()", "")], str(tmp_path))
    assert row == {"status": "ok", "fresh": {"first": 0.0}}


def test_a_process_that_fails_is_a_row(tmp_path: Path) -> None:
    row = cold.measured([sys.executable, "-c", "raise SystemExit('no such backend')"], str(tmp_path))
    assert row == {"status": "failed", "reason": "no such backend"}


@pytest.mark.slow
def test_the_first_call_of_a_process_is_timed() -> None:
    job = next(job for job in cold.jobs(CPU, True) if job.keys[0].endswith("hstl_fast reference"))
    reporter = Recorder()
    cold.execute(job, reporter, CPU, tiny=True)
    (row,) = reporter.rows.values()
    assert row["status"] == "ok"
    assert all(row["fresh"][call] > 0 for call in ("first", "second", "third"))
    (line,) = (line for line in stage_tables.BEFORE["cold"](reporter.rows) if "hstl_fast reference" in line)
    assert f"| {row['fresh']['first'] * 1e3:.1f} |" in line


@pytest.mark.parametrize("work", cold.WORKS)
def test_every_computation_is_one(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cold.main(["reference", work, "--device", "cpu", "--tiny"]) == 0
    assert '"second"' in capsys.readouterr().out


def test_the_driver_runs_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert drive.main(["reference", "--device", "cpu", "--only", "6-10, float16"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "done: arme 6-10, float16",
        "done: arme 6-10, float16, support",
        "done: arme 6-10, float16, ragged",
        "done: arme 6-10, float16, ragged, support",
        "done: astp 6-10, float16",
    ]
    assert drive.main(["reference", "--device", "cpu", "--only", "nothing"]) == 1


def test_the_driver_knows_every_operator_in_every_type() -> None:
    names = [case.name for case in drive.cases("reference", CPU, published=False)]
    for numerics in drive.ARITHMETICS:
        assert {name.split()[0].rstrip(",") for name in names if str(numerics) in name} == {"arme", "astp", "network"}
    assert [layer.split(",")[0] for layer in drive.layers(published=True)] == [
        "arme 32-32",
        "arme 32-64",
        "arme 64-128",
        "arme 128-128",
    ]
