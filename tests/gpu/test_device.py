"""`pytest tests --device cuda` runs the tests that need a device, on a GPU, or says in one line that there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
AS_IF_THERE_WERE_A_GPU = """
import sys, torch, pytest
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda *device: (9, 0)
torch.cuda.current_device = lambda: 0
pytest.main(sys.argv[1:])
"""


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line() -> None:
    done = run("-m", "pytest", "tests/gpu", "--device", "cuda")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stdout.strip() == ""
    assert done.stderr.strip() == "ERROR: --device cuda needs a GPU that torch can use; there is none"


@pytest.mark.slow
def test_on_a_gpu_only_tests_of_the_device_run_in_published_sizes() -> None:
    done = run("-c", AS_IF_THERE_WERE_A_GPU, "tests/gpu", "--device", "cuda", "--collect-only", "-q")
    names = [line for line in done.stdout.splitlines() if "::" in line]
    functions = {name.partition("[")[0] for name in names}
    assert functions == {
        *(f"tests/gpu/test_{file}.py::test_operator" for file in ("operators", "waiting")),
        "tests/gpu/test_networks.py::test_network",
        "tests/gpu/test_training.py::test_many_steps",
    }
    assert any("test_operator[arme 128-128 " in name for name in names)
    assert any(name.endswith("| tf32 | reference]") for name in names)
    assert any(name.startswith("tests/gpu/test_networks.py::test_network[oumvlp training step") for name in names)
