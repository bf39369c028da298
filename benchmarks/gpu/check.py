"""Stage check: `pytest tests --device cuda`, a row for each test.

The tests run in the kit's working process, which tells the rows as they come: a test that crashes, hangs or breaks the
device costs its row, and the others go on.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.core.text import anonymous
from benchmarks.gpu.supervise import CannotStart, Job, Reporter

ROOT = Path(__file__).parents[2]
# The variable with options of the user's own, such as those that would run the tests in other processes.
OPTIONS = "PYTEST_ADDOPTS"
# Seconds that one test may take.
LONGEST = 120.0


def jobs(device: torch.device) -> list[Job]:
    """One job with all tests that need a device, those of operators first, then networks, then the rest."""
    order = ("test_operators.py", "test_networks.py")
    keys = sorted(collected(device.type), key=lambda key: [name not in key for name in order])
    return [Job("check", "pytest", tuple(keys), LONGEST)]


def execute(job: Job, reporter: Reporter, device: torch.device) -> None:
    """Run the tests whose names are the job's keys."""
    import pytest

    from benchmarks.gpu.row_plugin import RowPlugin

    os.environ.pop(OPTIONS, None)
    plugin = RowPlugin(job.keys, reporter, device)
    pytest.main([*_arguments(device.type), "--quiet", "-p", "no:cacheprovider"], plugins=[plugin])
    if plugin.broken:
        reporter.leave()


@functools.lru_cache
def collected(device: str) -> tuple[str, ...]:
    """The names of all tests that need a device, as pytest collects them in a process of its own."""
    command = [sys.executable, "-m", "pytest", *_arguments(device), "--collect-only", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name != OPTIONS}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        lines = [line for line in (run.stderr + run.stdout).splitlines() if line.strip()]
        why = next((line[1:] for line in lines if line.startswith("E ")), lines[-1] if lines else "no output")
        raise CannotStart(f"pytest cannot collect the tests (pip install -e '.[test]'): {anonymous(why)}")
    return tuple(line for line in run.stdout.splitlines() if "::" in line)


def _arguments(device: str) -> list[str]:
    """On a CPU the tests of the device alone are enough to try the kit; on a GPU pytest itself picks them out."""
    folder = ROOT / "tests" if device == "cuda" else ROOT / "tests" / "gpu"
    return [str(folder), f"--device={device}", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
