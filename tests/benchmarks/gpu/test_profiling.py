"""Profiles name the kernels of the device by their share."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import (
    profiling,
)
from tests.benchmarks.gpu.helpers import rows_in, run


@pytest.mark.slow
def test_a_profile_names_its_kernels(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "profile", "--only", "clips x 3 frames | eager float32") == 0
    (row,) = rows_in(tmp_path)["profile"].values()
    assert row["status"] == "ok"
    assert any("conv" in kernel["name"] for kernel in row["kernels"][:10])
    assert sum(kernel["share"] for kernel in row["kernels"]) <= 1 + 1e-6
    assert "## profile" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "traces").exists()


def test_kernels_by_their_share() -> None:
    events = [("conv", 3.0), ("cat", 1.0), ("conv", 4.0), *((f"small {i}", 0.01) for i in range(100))]
    found = profiling.shares(iter(events))
    assert [kernel["name"] for kernel in found["kernels"][:2]] == ["conv", "cat"]
    assert found["kernels"][0] == {"name": "conv", "calls": 2, "seconds": 7.0, "share": pytest.approx(7 / 9)}
    assert len(found["kernels"]) == profiling.KERNELS
    assert found["seconds_of_others"] == pytest.approx(9.0 - sum(k["seconds"] for k in found["kernels"]))


def test_kernels_of_a_gpu_are_told_from_what_calls_them() -> None:
    gpu, cpu = profiling.DeviceType.CUDA, profiling.DeviceType.CPU

    def event(name: str, device: object, microseconds: float, annotation: bool = False) -> SimpleNamespace:
        span = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(name=name, device_type=device, time_range=span, is_user_annotation=annotation)

    events = [event("aten::conv3d", cpu, 9), event("wgrad", gpu, 2), event("step", gpu, 5, annotation=True)]
    recorded = SimpleNamespace(events=lambda: events)
    assert profiling._kernels(recorded, torch.device("cuda")) == [("wgrad", 2e-6)]
