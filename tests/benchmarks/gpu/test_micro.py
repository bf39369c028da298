"""The micro-benchmarks' program is found, built and listened to; a case at which it ends costs one row."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import micro, programs
from benchmarks.gpu.micro import build
from tests.benchmarks.gpu.helpers import CPU, Recorder, statuses

NAMES = ("wgmma n32, A in registers", "writes, all", "bulk copies of 8 KB", "ldmatrix of a list")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that prints a row for each name; it ends without a word at the second, and with one at the third."""
    path = tmp_path / "micro"
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "for name in sys.argv[2:]:\n"
        f"    if name == {NAMES[1]!r}:\n"
        "        sys.exit('the kernel: an illegal memory access')\n"
        f"    failed = name == {NAMES[2]!r}\n"
        "    status = 'failed' if failed else 'ok'\n"
        "    print(json.dumps({'name': name, 'unit': 'byte/s', 'predicted': 4e12, 'rate': 1e12, 'status': status}))\n"
        "    if failed:\n"
        "        sys.exit(1)\n"
    )
    path.chmod(0o755)
    monkeypatch.setattr(micro, "built", lambda capability: path)
    return path


def test_a_case_at_which_the_program_ends_costs_its_row(program: Path) -> None:
    reporter = Recorder()
    micro.execute(micro.jobs(CPU, False)[0]._replace(keys=NAMES), reporter, CPU, rehearse=False)
    assert statuses(reporter.rows) == dict(zip(NAMES, ("ok", "failed", "failed", "ok"), strict=True))
    assert reporter.rows[NAMES[1]]["reason"] == "the kernel: an illegal memory access"
    assert reporter.rows[NAMES[0]]["rate_over_predicted"] == 0.25


def test_without_a_compiler_every_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        raise programs.MissingProgram(f"{name} is not installed")

    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(programs, "find", find)
    reporter = Recorder()
    micro.execute(micro.jobs(CPU, False)[0]._replace(keys=NAMES), reporter, CPU, rehearse=False)
    assert set(statuses(reporter.rows).values()) == {"unavailable"}
    assert reporter.rows[NAMES[0]]["reason"] == "nvcc is not installed"


def test_a_program_that_was_built_elsewhere_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "compile_to", None)
    carried = tmp_path / f"micro-{build.fingerprint()}"
    carried.touch()
    assert build.built((9, 0)) == carried


def test_an_error_of_the_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\necho '/a/long/way/copies.cu(1): error: no such thing' >&2\nexit 2\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(programs, "find", lambda name: str(compiler))
    with pytest.raises(build.CannotCompile, match=r"^nvcc: copies.cu\(1\): error: no such thing$"):
        build.built()
    assert [path.name for path in tmp_path.iterdir()] == ["nvcc"]


def test_architectures() -> None:
    assert build.architectures((9, 0)) == ["arch=compute_90a,code=sm_90a"]
    assert build.architectures((12, 0)) == ["arch=compute_120,code=[sm_120,compute_120]"]
    assert build.architectures(None) == [build.AMPERE, build.HOPPER]


def test_rates_in_words() -> None:
    assert micro.rate(7.9e14, "FLOP/s") == "790 TFLOP/s"
    assert micro.rate(4.3e12, "byte/s") == "4.3 TB/s"


def test_predictions_are_complete() -> None:
    assert len(micro.cases()) > 30
    assert set(NAMES) <= set(micro.cases())
    for case in micro.cases().values():
        assert case["unit"] in ("FLOP/s", "byte/s")
        assert case["predicted"] > 0
        assert case["model"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_program_lists_the_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    listed = programs.run([str(build.built((9, 0))), "list"], 60).stdout.splitlines()
    assert [json.loads(line) for line in listed] == list(micro.cases().values())
