"""Triton's kernels where there is no GPU: in the interpreter, and compiled for GPUs that need not be here.

Both in processes of their own, since whoever imports Triton first decides whether it interprets.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hstl_fast.ops import _triton

pytestmark = pytest.mark.skipif(_triton.why_no_triton() is not None, reason=str(_triton.why_no_triton()))
MOST_SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
"""Bytes of shared memory that one block may have."""


REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/triton runs on the GPU")
def test_the_kernels_in_the_interpreter(environment: dict[str, str], pytestconfig: pytest.Config) -> None:
    slow = ["--slow"] if pytestconfig.getoption("slow") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *slow, "tests/triton"]
    environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", MOST_SHARED)
def test_what_the_networks_launch(target: str, environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = _compiled(target, "bfloat16,float32", environment)
    with capsys.disabled():
        for row in rows:
            print(
                "{target:7} {registers:4} registers {shared:7} bytes shared {spilled:4} spilled  {kernel}".format(**row)
            )
    _assert_fits(rows, target)


def _compiled(target: str, dtypes: str, environment: dict[str, str]) -> list[dict[str, int]]:
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.triton.ahead", target, dtypes]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _assert_fits(rows: list[dict[str, int]], target: str) -> None:
    assert len(rows) > 50
    assert not [row for row in rows if row["spilled"] or row["shared"] > MOST_SHARED[target]]
