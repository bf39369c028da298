"""Several GPUs of different capability: a tensor's device decides, not the current device."""

from types import SimpleNamespace

import pytest
import torch

from hstl_fast.backends import gpu

OLD, NEW = torch.device("cuda", 0), torch.device("cuda", 1)


def test_precision_is_that_of_the_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(gcnArchName={OLD: "gfx90a:sramecc+", NEW: "gfx942:sramecc+"}[device])

    monkeypatch.setattr(torch.version, "hip", "6.3")
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert gpu.precision(OLD) == "ieee"
    assert gpu.precision(NEW) == "tf32"
    assert gpu.precision(torch.device("cpu")) == "tf32"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert gpu.precision(NEW) == "ieee"


def test_the_gpu_that_is_asked_about_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def capability(device: torch.device | None = None) -> tuple[int, int]:
        return {None: (9, 0), OLD: (7, 5), NEW: (9, 0)}[device]

    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    assert gpu.why_not_this_gpu() is None
    assert gpu.why_not_this_gpu(NEW) is None
    assert gpu.why_not_this_gpu(OLD) == "a GPU of compute capability 8.0 or newer is needed, found 7.5"
