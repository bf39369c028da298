"""Python programs that run in processes of their own."""

import subprocess
import sys


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
