"""The stage check runs pytest's tests of the device, and every test is a row."""

import time
from pathlib import Path

import pytest

from benchmarks.gpu import check, supervise
from benchmarks.gpu.supervise import CannotStart, Job, Row
from tests.benchmarks.gpu import jobs
from tests.benchmarks.gpu.helpers import CPU, rows_in, run, statuses

TESTS = """
import os, signal
import pytest

def test_right(record_property):
    record_property("errors", {"output": 1e-7})

def test_wrong(record_property):
    record_property("errors", {"output": 0.5})
    assert False, "output is off\\nby a lot in /some/where/file.py"

def test_raising():
    raise ValueError("no such kernel")

@pytest.mark.skip(reason="not here")
def test_skipped(): pass

def test_dying(): os.kill(os.getpid(), signal.SIGSEGV)

@pytest.fixture
def late():
    yield
    raise ValueError("too late")

def test_late(late): pass

def test_not_asked_for(): pass

@pytest.mark.parametrize("case", ["a [1, 2] | float32 | cpu"])
def test_last(case): pass
"""
NAMES = ("right", "wrong", "raising", "skipped", "dying", "late", "last[a [1, 2] | float32 | cpu]")


def rows_of(folder: Path, execute: supervise.Execute, names: tuple[str, ...]) -> dict[str, Row]:
    """Rows of these tests by the names of their functions."""
    (folder / "test_some.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    rows: dict[str, Row] = {}
    keys = tuple(f"test_some.py::test_{name}" for name in names)
    job = Job("check", str(folder), keys, 60)
    supervise.supervise([job], execute, rows.__setitem__, time.monotonic() + 90, folder / "log.txt")
    return {key.partition("::test_")[2]: row for key, row in rows.items()}


def test_every_test_is_a_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, jobs.run_tests, NAMES)
    assert {name: (row["status"], row.get("reason")) for name, row in rows.items()} == {
        "right": ("pass", None),
        "wrong": ("fail", "AssertionError: output is off"),
        "raising": ("fail", "ValueError: no such kernel"),
        "skipped": ("unavailable", "not here"),
        "dying": ("died", "its process was ended by SIGSEGV"),
        "late": ("fail", "ValueError: too late"),
        "last[a [1, 2] | float32 | cpu]": ("pass", None),
    }
    assert rows["right"]["errors"] == {"output": 1e-7}
    assert rows["wrong"]["errors"] == {"output": 0.5}


@pytest.mark.slow
def test_after_a_broken_device_a_new_process_goes_on(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, jobs.run_tests_that_break_the_device, ("right", "wrong", "raising"))
    assert statuses(rows) == {"right": "pass", "wrong": "fail", "raising": "fail"}
    assert (tmp_path / "log.txt").read_text().count("test session starts") == 2


@pytest.mark.slow
def test_the_stage_runs_the_tests_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--deselect=tests/gpu/test_operators.py")
    check.collected.cache_clear()
    chosen = "fta 6-6 [5, 1, 3] 14x9x7, ragged | float32 | reference"
    assert run(tmp_path, "--stage", "check", "--only", chosen) == 0
    (key, row), *others = rows_in(tmp_path)["check"].items()
    assert not others
    assert key == f"tests/gpu/test_operators.py::test_operator[{chosen}]"
    assert row["status"] == "pass"
    assert 0 <= row["errors"]["output"] <= row["allowed"]["output"]
    assert "| test_operator | reference | float32 | 1 pass |" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_operators_come_first_then_networks() -> None:
    (job,) = check.jobs(CPU)
    files = list(dict.fromkeys(key.partition("::")[0] for key in job.keys))
    assert files[:2] == ["tests/gpu/test_operators.py", "tests/gpu/test_networks.py"]
    assert len(files) > 3
    assert len(job.keys) == len(set(job.keys))


@pytest.mark.slow
def test_tests_that_cannot_be_collected_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    monkeypatch.setattr(check, "_arguments", lambda device: [str(tmp_path), "--rootdir", str(tmp_path)])
    check.collected.cache_clear()
    try:
        with pytest.raises(CannotStart, match=r"No module named 'no_such_module'"):
            check.collected("cpu")
        assert run(tmp_path / "out", "--stage", "check") == 2
    finally:
        check.collected.cache_clear()
    assert capsys.readouterr().err.startswith("benchmarks.gpu: pytest cannot collect the tests (pip install")
    assert not (tmp_path / "out").exists()
