"""`hstl-fast bench`: what it refuses before it measures, what it runs, and what becomes of the report."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hstl_fast
from hstl_fast.cli import bench
from tests.benchmarks.report import measured
from tests.cli.helpers import run

pytest.importorskip("matplotlib", reason="bench draws with matplotlib, from the extra [bench]")

from benchmarks.report.__main__ import PAGE, TABLES
from benchmarks.report.__main__ import main as report
from benchmarks.report.pictures import PICTURES
from benchmarks.report.results import FILE

OLD = {"results.json": '{"benchmarks": [], "peaks": {}}', "index.html": "old page", "memory.svg": "old picture"}
Yardstick = Callable[..., list[list[str]]]


@pytest.fixture
def yardstick(monkeypatch: pytest.MonkeyPatch) -> Yardstick:
    """Replaces the benchmarks by a fake that writes `results` and ends with `code`, and returns the commands run; the
    results are drawn in this process."""

    def replace(results: str = json.dumps(measured.only(measured.results(), "embedding")), code: int = 0) -> Any:
        commands: list[list[str]] = []

        def fake(command: list[str], **options: Any) -> Any:
            commands.append(command)
            assert (Path(options["cwd"]) / "benchmarks" / "conftest.py").is_file()
            if command[:3] == [sys.executable, "-m", "benchmarks.report"]:
                return drawn(command)
            (path,) = [word.split("=")[1] for word in command if word.startswith("--benchmark-json=")]
            assert Path(path).is_absolute()
            Path(path).write_text(results, encoding="utf-8")
            return subprocess.CompletedProcess(command, code)

        monkeypatch.setattr(subprocess, "run", fake)
        return commands

    return replace


def drawn(command: list[str]) -> subprocess.CompletedProcess[str]:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = report(command[3:])
    return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be run."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("ran something before it had checked everything")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The report of an earlier run."""
    folder = tmp_path / "report"
    folder.mkdir()
    for name, text in OLD.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_knows_every_file_of_a_report() -> None:
    assert {FILE, PAGE, TABLES, *(picture.file for picture in PICTURES)} == bench.FILES


def test_writes_results_pictures_tables_and_page(tmp_path: Path, yardstick: Yardstick) -> None:
    commands = yardstick()
    folder = tmp_path / "deep" / "report"
    result = run("bench", "--report", folder)
    pictures = {"latency.svg", "memory.svg", "operators.svg"}
    assert {path.name for path in folder.iterdir()} == {FILE, PAGE, TABLES, *pictures}
    assert "hstl_fast cpu" in (folder / "latency.svg").read_text(encoding="utf-8")
    assert f"{folder / PAGE} shows them all" in result.output
    assert "goals reached" in result.output
    assert "  not measured: strip pool" in result.output
    assert "wrote" not in result.output
    assert commands[0][:5] == [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only"]
    assert not {"--quick", "--goals", "-k"} & set(commands[0])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report"]


def test_passes_the_selection_on(tmp_path: Path, yardstick: Yardstick) -> None:
    commands = yardstick()
    run("bench", "--quick", "-k", "gait3d or fta", "--report", tmp_path / "report")
    assert "--quick" in commands[0]
    assert commands[0][commands[0].index("-k") + 1] == "gait3d or fta"


def test_goals_are_selected_by_an_option_of_their_own(tmp_path: Path, yardstick: Yardstick) -> None:
    commands = yardstick()
    run("bench", "--goals", "--report", tmp_path / "report")
    assert "--goals" in commands[0]
    assert "--quick" not in commands[0]


def test_writes_bench_report_here_unless_told(
    tmp_path: Path, yardstick: Yardstick, monkeypatch: pytest.MonkeyPatch
) -> None:
    yardstick()
    monkeypatch.chdir(tmp_path)
    run("bench")
    assert (tmp_path / "bench-report" / PAGE).is_file()


def test_replaces_an_earlier_report_whole(older: Path, yardstick: Yardstick) -> None:
    yardstick(json.dumps(measured.only(measured.results(), "training step")))
    run("bench", "--report", older)
    assert {path.name for path in older.iterdir()} == {FILE, PAGE, TABLES, "training.svg", "memory.svg"}
    assert "old page" not in contents(older)[PAGE]


def test_exit_code_tells_when_ours_was_wrong(tmp_path: Path, yardstick: Yardstick) -> None:
    yardstick(code=1)
    result = run("bench", "--report", tmp_path / "report", exit_code=1)
    assert "Error: hstl_fast was wrong or failed, see above" in result.output
    assert (tmp_path / "report" / PAGE).is_file()


@pytest.mark.parametrize(
    ("code", "results", "message"),
    [
        (5, "", "expected workloads to measure, got none that match -k 'no such'"),
        (4, "", "the benchmarks ended early, with pytest's exit code 4"),
        (2, "{}", "the benchmarks ended early, with pytest's exit code 2"),
        (-9, "", "the benchmarks ended early, with pytest's exit code -9"),
        (1, "", "nothing was measured"),
    ],
)
def test_a_run_that_does_not_get_there_leaves_the_older_report(
    older: Path, yardstick: Yardstick, code: int, results: str, message: str
) -> None:
    commands = yardstick(results, code)
    assert message in run("bench", "-k", "no such", "--report", older, exit_code=1).output
    assert contents(older) == OLD
    assert [path.name for path in older.parent.iterdir()] == [older.name]
    assert len(commands) == 1


def test_an_interruption_leaves_the_older_report(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    assert "Aborted" in run("bench", "--report", older, exit_code=130).output
    assert contents(older) == OLD
    assert [path.name for path in older.parent.iterdir()] == [older.name]


def test_results_outlive_a_failure_to_draw_them(tmp_path: Path, yardstick: Yardstick) -> None:
    yardstick('{"benchmarks": []}')
    result = run("bench", "--report", tmp_path / "report", exit_code=1)
    assert f"Error: {tmp_path / 'report' / FILE} is whole, but was not drawn: " in result.output
    assert contents(tmp_path / "report") == {FILE: '{"benchmarks": []}'}


def test_quick_and_goals_exclude_each_other(tmp_path: Path, no_run: None) -> None:
    result = run("bench", "--quick", "--goals", "--report", tmp_path / "report", exit_code=2)
    assert "expected one of --quick and --goals, got both" in result.output


def test_folders_of_others_are_left_alone(older: Path, no_run: None) -> None:
    (older / "thesis.tex").write_text("mine")
    result = run("bench", "--report", older, exit_code=2)
    assert f"{older}: expected an empty folder or an earlier report, got one with thesis.tex in it" in result.output
    assert contents(older) == {**OLD, "thesis.tex": "mine"}


@pytest.mark.parametrize(
    "text", ["[1, 2]", '{"mine": 1}', "not json", "[" * 100_000], ids=["list", "mine", "not json", "nested"]
)
def test_results_of_something_else_are_left_alone(older: Path, no_run: None, text: str) -> None:
    (older / FILE).write_text(text)
    assert "got one with a results.json of something else in it" in run("bench", "--report", older, exit_code=2).output
    assert contents(older)[FILE] == text


def test_a_page_without_results_is_not_a_report(older: Path, no_run: None) -> None:
    (older / FILE).unlink()
    assert "got one with index.html in it" in run("bench", "--report", older, exit_code=2).output


def test_a_file_is_not_a_folder(tmp_path: Path, no_run: None) -> None:
    path = tmp_path / "file"
    path.touch()
    assert (
        f"{path}: expected a folder or nothing there, got a file" in run("bench", "--report", path, exit_code=2).output
    )
    assert (
        f"{path / 'x'} cannot be written: Not a directory" in run("bench", "--report", path / "x", exit_code=2).output
    )


def test_this_folder_cannot_be_replaced(no_run: None) -> None:
    assert "got the one we are in" in run("bench", "--report", ".", exit_code=2).output


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written(no_run: None) -> None:
    assert "/proc/report cannot be written: " in run("bench", "--report", "/proc/report", exit_code=2).output


def test_says_what_to_install(tmp_path: Path, no_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "NEEDED", ("pytest", "no_such_plotter", "no_such_timer"))
    output = run("bench", "--report", tmp_path / "report", exit_code=1).output
    assert (
        output == "Error: bench needs no-such-plotter, no-such-timer, not installed here: pip install -e '.[bench]'\n"
    )
    assert not (tmp_path / "report").exists()


def test_needs_a_checkout(tmp_path: Path, no_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hstl_fast, "__file__", str(tmp_path / "site-packages" / "hstl_fast" / "__init__.py"))
    output = run("bench", "--report", tmp_path / "report", exit_code=1).output
    assert f"got none in {tmp_path / 'site-packages'}: bench runs in a checkout of the sources" in output
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_measures_and_draws_for_real(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    run("bench", "--quick", "-k", "test_forward and strips", "--report", folder)
    (workload,) = json.loads((folder / FILE).read_text(encoding="utf-8"))["benchmarks"]
    assert workload["extra_info"]["group"] == "strip_pool forward"
    assert "strip_pool forward" in (folder / TABLES).read_text(encoding="utf-8")
