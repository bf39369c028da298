"""Whatever goes wrong in a working process costs one row."""

from pathlib import Path

import pytest

from benchmarks.gpu.supervise import CannotStart
from tests.benchmarks.gpu import jobs
from tests.benchmarks.gpu.helpers import statuses, supervised


def test_what_ends_its_process_costs_one_row(tmp_path: Path) -> None:
    rows = supervised(jobs.obey, [("a", "die-1", "b"), ("raise-1", "c"), ("break-1", "d")], tmp_path)
    assert statuses(rows) == {
        "a": "ok",
        "die-1": "died",
        "b": "ok",
        "raise-1": "failed",
        "c": "failed",
        "break-1": "ok",
        "d": "ok",
    }
    assert rows["die-1"]["reason"] == "its process was ended by SIGSEGV"
    assert rows["c"]["reason"] == "ValueError: no such thing in file.py"
    assert len({rows[key]["process"] for key in ("a", "b", "d")}) == 3
    assert rows["b"]["process"] == rows["break-1"]["process"]


def test_rows_made_together_are_tried_alone_after_a_death(tmp_path: Path) -> None:
    rows = supervised(jobs.die_together, [("a", "die-1", "b")], tmp_path)
    assert statuses(rows) == {"a": "ok", "die-1": "died", "b": "ok"}
    assert rows["die-1"]["reason"] == "its process ended with exit code 7"


@pytest.mark.slow
def test_limits_of_a_row_and_of_the_stage(tmp_path: Path) -> None:
    rows = supervised(jobs.obey, [("hang-1", "a"), ("hang-2", "b")], tmp_path, limit=1, budget=60)
    assert rows["hang-1"] == {"status": "stopped", "reason": "stopped after 1 seconds, its limit"}
    assert statuses(rows) == {"hang-1": "stopped", "a": "ok", "hang-2": "stopped", "b": "ok"}
    rows = supervised(jobs.obey, [("hang-1", "a"), ("b",)], tmp_path, budget=3)
    assert statuses(rows) == {"hang-1": "not reached", "a": "not reached", "b": "not reached"}


def test_a_job_without_all_its_rows(tmp_path: Path) -> None:
    rows = supervised(jobs.skip_a_row, [("a", "b")], tmp_path)
    assert statuses(rows) == {"a": "ok", "b": "failed"}
    rows = supervised(jobs.leave_at_once, [("a",)], tmp_path)
    assert rows["a"] == {"status": "died", "reason": "its device no longer answered"}


def test_a_process_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"ended at once \(ended with exit code 1\)"):
        supervised(jobs.Unimportable(), [("a",)], tmp_path)
