"""A rehearsal goes through the stages that need programs of the CUDA toolkit, with stand-ins for these."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import implementations, stages
from benchmarks.gpu.stages import SHARES, STAGES, Setup
from tests.benchmarks.gpu.helpers import CPU, rows_in, statuses


@pytest.mark.slow
def test_stages_that_need_programs(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--rehearse", "--stage", "micro", "ncu"]
    assert kit.main(arguments) == 0
    rows = rows_in(tmp_path)
    assert set(statuses(rows["micro"]).values()) == {"ok"}
    assert set(statuses(rows.get("ncu", {})).values()) <= {"ok"}
    assert bool(implementations.with_kernels(CPU)) == ("ncu" in rows)
    text = (tmp_path / "table.md").read_text()
    assert "**A rehearsal**" in text
    assert "| wgmma n32, A in registers | 395 TFLOP/s | 790 TFLOP/s | 50% | 1000 | ok |" in text
    assert json.loads((tmp_path / "results.json").read_text())["identity"]["rehearsal"] is True


def test_a_real_run_on_a_cpu_has_no_such_stages() -> None:
    for stage in ("micro", "sanitizer", "ncu"):
        assert stages.jobs(stage, Setup("cpu", tiny=True)) == []
    assert stages.jobs("micro", Setup("cpu", tiny=True, rehearse=True))


def test_stages_share_the_time_that_is_left() -> None:
    planned = list(STAGES)
    ends = [kit.deadline(stage, planned, 100.0, 400.0) - 100 for stage in planned]
    total = sum(SHARES.values())
    assert ends[0] == pytest.approx(300 * SHARES[planned[0]] / total)
    assert ends[-1] == 300
    assert kit.deadline("bench", ["check", "bench"], 100.0, 400.0) == 400
    assert kit.deadline("bench", ["bench", "profile"], 500.0, 400.0) == 500
