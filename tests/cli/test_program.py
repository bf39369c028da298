"""The program as a whole: real processes, the missing extra, `info`, and errors without tracebacks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hstl_fast.info
from hstl_fast import __version__, _starting
from tests.cli.helpers import invoke, run
from tests.conftest import skip_without_binary

COMMANDS = ("demo", "info", "silhouettes", "embed", "identify", "bench", "tune")


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hstl_fast", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, check=False
    )


def test_help_names_every_command() -> None:
    output = run("--help").stdout
    assert all(f"\n  {command} " in output for command in COMMANDS)
    for command in COMMANDS:
        assert "Usage:" in run(command, "--help").stdout


def test_module_and_script_are_one_program() -> None:
    result = process("--version")
    assert result.returncode == 0
    assert result.stdout.strip() == f"hstl-fast, version {__version__}"
    script = Path(sys.executable).with_name("hstl-fast")
    if script.exists():
        assert subprocess.check_output([script, "--version"], text=True) == result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no signal reaches another process alone")
@pytest.mark.parametrize("module", ["torch", pytest.param("click", marks=pytest.mark.slow)])
def test_an_interrupt_while_modules_are_imported(tmp_path: Path, module: str) -> None:
    interrupting = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    (tmp_path / f"{module}.py").write_text(interrupting)
    result = process("info", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_an_interrupt_of_another_program_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, signal\nimport hstl_fast\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('mine')\n"
    )
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, tmp_path / "mine.py"]
    assert subprocess.check_output(command, text=True, env={**os.environ, "PYTHONPATH": path}) == "mine\n"


@pytest.mark.parametrize(
    ("command", "is_program"),
    [
        ("python /usr/bin/hstl-fast info", True),
        ("python -I /usr/bin/hstl-fast.exe info", True),
        ("python -m hstl_fast info", True),
        ("python -uW ignore -X dev -Im hstl_fast info", True),
        ("python -mhstl_fast --help", True),
        ("python hstl-fast.py", False),
        ("python /home/hstl_fast/mine.py", False),
        ("python - hstl_fast", False),
        ("python -mpytest hstl_fast", False),
        ("python -m hstl_fast.demo info", False),
        ("python -W hstl_fast mine.py", False),
        ("python -cpass hstl_fast", False),
        ("python", False),
    ],
)
def test_only_the_program_itself_takes_the_signal(command: str, is_program: bool) -> None:
    assert _starting._is_program(command.split()) == is_program


@pytest.mark.parametrize("missing", ["click", pytest.param("rich", marks=pytest.mark.slow)])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('hidden', name={missing!r})\n")
    result = process("info", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert result.returncode == 1
    assert result.stderr == f"hstl-fast needs {missing}, which is not installed: pip install 'hstl_fast[cli]'\n"


def test_info_table_and_json_agree() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert facts["hstl_fast"] == __version__
    assert {row["backend"] for row in facts["backends"]} == {"reference", "cpu", "triton", "cuda"}
    assert facts["requested_algorithm"] == "auto"
    table = run("info").stdout
    assert re.search(r"requested_algorithm +auto", table)
    for row in facts["backends"]:
        assert row["reason"] is None or row["reason"] in table


def test_info_check_passes() -> None:
    facts = json.loads(run("info", "--json", "--check").stdout)
    assert {result["backend"] for result in facts["check"]} >= {"reference"}
    assert all(result["passed"] for result in facts["check"])


def test_info_check_tries_every_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_binary("cpu")
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", "winograd")
    checked = json.loads(run("info", "--json", "--check").stdout)["check"]
    native = {
        (result["operator"], result["dtype"]): result["error"] for result in checked if result["backend"] == "cpu"
    }
    for name in ("forward", "gradient of x", "gradient of weights"):
        assert native[f"arme, {name}", "float32"] != native[f"arme by Winograd, {name}", "float32"]
        assert (f"arme by Winograd, {name}", "float64") not in native


def test_info_check_fails_when_a_backend_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = hstl_fast.info.Check("cpu", "arme, forward", "cpu", "float32", error=1.0, tolerance=1e-5)
    monkeypatch.setattr(hstl_fast.info, "check", lambda: [wrong])
    result = run("info", "--check", exit_code=1)
    assert "FAILED" in result.stdout
    assert "disagrees" in result.stderr


def test_unexpected_errors_are_one_line_unless_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(hstl_fast.info, "collect", broken)
    result = run("info", exit_code=1)
    assert result.stderr.splitlines() == ["Error: unexpected KeyError: 'surprise'; `hstl-fast --debug ...` shows where"]


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"nonsense")
    arguments = ("identify", "--gallery", bad, "--probe", bad, "--checkpoint", bad)
    monkeypatch.setenv("HSTL_FAST_DEBUG", "false")
    run(*arguments, exit_code=1)  # which allows no traceback
    loud = invoke("--debug", *arguments)
    assert loud.exit_code == 1
    assert "Traceback" in loud.stderr
    monkeypatch.setenv("HSTL_FAST_DEBUG", "on")
    assert "Traceback" in invoke(*arguments).stderr
    monkeypatch.setenv("HSTL_FAST_DEBUG", "flase")
    wrong = run(*arguments, exit_code=2)
    assert "HSTL_FAST_DEBUG must be 1 or 0" in wrong.stderr
    assert "did you mean 'false'?" in wrong.stderr


def test_unknown_backend_in_the_environment(gallery: Path, tmp_path: Path) -> None:
    result = process("embed", gallery, "-o", tmp_path / "out.npz", HSTL_FAST_BACKEND="cup")
    assert result.returncode == 1
    assert "HSTL_FAST_BACKEND must be one of" in result.stderr
    assert "did you mean 'cpu'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.slow
def test_embed_and_identify_as_processes(gallery: Path, probe: Path, tmp_path: Path) -> None:
    output = tmp_path / "gallery.npz"
    assert process("embed", gallery, "-o", output).returncode == 0
    result = process("identify", "--gallery", output, "--probe", probe)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0].split() == ["probe", "rank", "gallery", "distance"]
