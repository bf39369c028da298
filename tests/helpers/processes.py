"""Programs in processes of their own."""

import subprocess
import sys


def run_python(program: str, argument: str, environment: dict[str, str]) -> str:
    """What `program` prints when it is given the argument; fails with what it says if it does not end well."""
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
