"""Python programs that run in processes of their own."""

import subprocess
import sys
from pathlib import Path


def run_python(program: str, argument: str, environment: dict[str, str]) -> str:
    """Run a program with one argument and return what it prints; fail with its error output if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", program, argument],
        env=environment,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_two(program: str, store: Path, environment: dict[str, str]) -> list[str]:
    """Run a program as two processes at once, with the arguments rank and path of a new store; return what they print.

    Both end with the first that fails.
    """
    command = [sys.executable, "-c", program]
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(2):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            started.append(subprocess.Popen([*command, str(rank), str(store)], env=environment, text=True, **pipes))
        printed = []
        for process in started:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            printed.append(out)
        return printed
    finally:
        for process in started:
            process.kill()
            process.communicate()
