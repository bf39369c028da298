"""Runs of the kit: what they refuse, how they go on, what their exit codes say."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import (
    compare,
    environment,
    stages,
    supervise,
)
from benchmarks.gpu.stages import Setup
from benchmarks.gpu.store import Store
from benchmarks.gpu.supervise import Job
from tests.benchmarks.gpu.helpers import CPU, IDENTITY, REPOSITORY, rows_in, run, statuses
from tests.gpu import operators


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.main(["--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "--device cuda needs a GPU that torch can use" in printed.err
    assert not (tmp_path / "out").exists()


def test_minutes_must_be_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--minutes", "0") == 2
    assert "--minutes must be positive, got 0" in capsys.readouterr().err


CHOSEN = ("--only", "arme 6-10 [5, 1, 3] 14x9x7 | float32")


@pytest.mark.slow
def test_a_run_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "sources", lambda stage="bench": "first")
    monkeypatch.setattr(environment, "kit", lambda: "kit")
    assert run(tmp_path, "--stage", "check", "--minutes", "0.001", *CHOSEN) == 3
    rows = rows_in(tmp_path)["check"]
    assert set(statuses(rows).values()) == {"not reached"}
    assert capsys.readouterr().err.endswith(
        f": {len(rows)} rows were NOT REACHED ({len(rows)} of check); run the same command again to go on\n"
    )
    assert run(tmp_path, "--stage", "check", *CHOSEN) == 0
    rows = rows_in(tmp_path)["check"]
    assert set(statuses(rows).values()) == {"pass"}
    case = operators.cases(tiny=True)[0]
    assert {key.removesuffix("]").rsplit(" | ", 1)[1] for key in rows} == set(
        operators.backends(case, CPU, torch.float32)
    )
    capsys.readouterr()
    monkeypatch.setattr(supervise, "_serve", None)
    assert run(tmp_path, "--stage", "check", *CHOSEN) == 0, "nothing is left to do, so no process is needed"
    printed = capsys.readouterr().out
    assert "check: " not in printed.replace("## check: ", "")
    assert printed == (tmp_path / "table.md").read_text()
    monkeypatch.setattr(environment, "sources", lambda stage="bench": "second")
    assert run(tmp_path, "--stage", "check", "--minutes", "0.001", *CHOSEN) == 3
    assert set(statuses(rows_in(tmp_path)["check"]).values()) == {"not reached"}


def test_text_in_no_name_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out", "--stage", "bench", "--only", "zzzz") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("benchmarks.gpu: --only 'zzzz' is in no row's name of bench; one is 'peaks | ")
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "status", "code"),
    [
        ("check", {"c | float32 | cpu": "pass"}, 3),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "not reached"}, 3),
        ("check", {"c | float32 | cpu": "fail"}, 1),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "unheard of"}, 1),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "pass"}, 0),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "stopped"}, 1),
        ("bench", {"w | hstl_fast auto, float32": "ok", "w | eager float32": "not reached"}, 3),
        ("bench", {"w | hstl_fast auto, float32": "ok", "w | eager float32": "wrong"}, 0),
        ("bench", {"w | hstl_fast auto, float32": "wrong", "w | eager float32": "ok"}, 1),
    ],
)
def test_only_what_ran_and_passed_is_0(tmp_path: Path, stage: str, status: dict[str, str], code: int) -> None:
    keys = {"check": ("c | float32 | cpu", "c | float32 | reference")}
    keys["bench"] = ("w | hstl_fast auto, float32", "w | eager float32")
    store = Store(tmp_path, IDENTITY, {}, fresh=False)
    store.put(stage, "not asked for | hstl_fast auto, float32", {"status": "fail"})
    for key, value in status.items():
        store.put(stage, key, {"status": value})
    assert kit._verdict({stage: [Job(stage, "j", keys[stage], 1)]}, store) == code


@pytest.mark.slow
def test_a_killed_run_keeps_what_it_had(tmp_path: Path, environment: dict[str, str]) -> None:
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--tiny", "--stage", "bench", "--only", "peaks |"]
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("bench: peaks | device copy")
        process.kill()
    rows = rows_in(tmp_path)["bench"]
    assert rows
    assert set(statuses(rows).values()) <= {"ok", "unavailable"}


def test_everything_asked_for_is_planned() -> None:
    jobs = compare.jobs(CPU, tiny=False)
    assert jobs[0].name == compare.PEAKS
    assert jobs[1].name == "training step: casia-b, 8 x 8 clips x 30 frames"
    compiled = [any("torch.compile" in key for key in job.keys) for job in jobs]
    assert compiled == sorted(compiled), "those that compile come last"
    assert any(compiled)
    for stage in stages.STAGES:
        keys = [key for job in stages.jobs(stage, Setup("cpu", tiny=False)) for key in job.keys]
        assert len(keys) == len(set(keys))


def test_the_kit_is_no_benchmark_of_pytests() -> None:
    names = {path.name for path in (REPOSITORY / "benchmarks" / "gpu").glob("*.py")}
    assert not [name for name in names if name.startswith(("bench_", "test_"))]


@pytest.mark.slow
def test_torch_compile_on_a_cpu(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "bench", "--only", "embedding: casia-b, 1 x 3 frames | torch.compile") == 0
    assert set(statuses(rows_in(tmp_path)["bench"]).values()) == {"ok"}


@pytest.mark.slow
def test_every_stage_in_order(tmp_path: Path) -> None:
    assert run(tmp_path, "--only", "casia-b, 2 x 2 clips x 3 frames | hstl_fast auto") == 0
    rows = rows_in(tmp_path)
    assert list(rows) == ["bench", "profile"]
    assert all(set(statuses(stage).values()) == {"ok"} for stage in rows.values())
