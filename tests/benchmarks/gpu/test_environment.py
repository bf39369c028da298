"""The results describe the device, and name no host."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.core.text import in_one_line
from benchmarks.gpu import (
    environment,
)
from tests.benchmarks.gpu.helpers import CPU, REPOSITORY


def test_nothing_in_the_results_names_the_host(tmp_path: Path) -> None:
    described = json.dumps(environment.describe(CPU))
    for secret in (os.uname().nodename, str(REPOSITORY), str(Path.home()), sys.prefix):
        assert secret not in described
    error = OSError(f"[Errno 2] No such file: '{REPOSITORY}/benchmarks/gpu/a.py', see https://example.org/a/b")
    assert in_one_line(error) == "OSError: [Errno 2] No such file: 'a.py', see https://example.org/a/b"


def test_nvidia_smi_is_asked_for_this_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    program.write_text('#!/bin/sh\n[ "$1 $2" = "-i GPU-1-2" ] && echo "580.1, 345, 3201, 1980, 3201, 75.5, 700.00"\n')
    program.chmod(0o755)
    found = environment.clocks(torch.device("cuda"))
    assert (found["driver_version"], found["clocks.sm"], found["power.limit"]) == ("580.1", "345", "700.00")
    program.write_text("#!/bin/sh\nexit 9\n")
    assert environment.clocks(torch.device("cuda")) == {"unavailable": "CalledProcessError"}
