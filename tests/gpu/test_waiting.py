"""No operator of a backend with kernels makes its caller wait for the GPU, neither forward nor backward."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.gpu.numerics import Numerics
from hstl_fast import functional
from tests.conftest import chosen_device
from tests.gpu import operators
from tests.gpu.operators import Case
from tests.gpu.waiting import waits


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        gpu = torch.device("cuda")
        cases = operators.cases(tiny=True) if chosen_device(metafunc.config) == gpu else []
        rows = [(case, backend) for case in cases for backend in operators.backends(case, gpu, torch.float32)]
        ids = [f"{case.name} | float32 | {backend}" for case, backend in rows]
        metafunc.parametrize(("case", "backend"), rows, ids=ids)


def test_operator(case: Case, backend: str, device: torch.device, record_property: Callable[[str, Any], None]) -> None:
    given = operators.in_mode(operators.operands(case, device), Numerics(torch.float32), device)
    call = functools.partial(operators.answer, functional, case, given, {"backend": backend})
    found = waits(call, device)
    record_property("synchronisations", found)
    assert found == 0 or backend == "reference"


def test_waits_of_the_second_call_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    calls: list[str] = []

    def call() -> None:
        calls.append(modes[-1] if modes else "default")
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    with pytest.warns(UserWarning, match="synchronizing"):
        assert waits(call, torch.device("cuda")) == 1
    assert calls == ["default", "warn"]
    assert modes == ["warn", "default"]
