"""Programs of the CUDA toolkit are found where they usually are, and what they say last is kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import programs


def test_a_program_beside_the_toolkit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "some-tool-of-cuda"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(programs.MissingProgram, match="some-tool-of-cuda is not installed"):
        programs.find(program.name)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert programs.find(program.name) == str(program)


def test_a_program_that_hangs_is_stopped() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        programs.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)


def test_lines_and_the_reason_of_an_end() -> None:
    command = [sys.executable, "-c", "import sys; print('a'); print('b'); sys.exit('no GPU in /a/long/way/to/here')"]
    with programs.lines(command) as (printed, ending):
        assert list(printed) == ["a\n", "b\n"]
        assert ending.reason() == "no GPU in here"
    with programs.lines([sys.executable, "-c", "raise SystemExit(3)"]) as (printed, ending):
        assert list(printed) == []
        assert ending.reason() == "its process ended with exit code 3"
    with programs.lines([sys.executable, "-c", "import signal; signal.alarm(1); signal.pause()"]) as (printed, ending):
        assert list(printed) == []
        assert ending.reason() == "its process was ended by SIGALRM"
