"""Every published network on every backend of a device against float64: embeddings, losses and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.gpu.numerics import Numerics
from tests.conftest import chosen_device
from tests.gpu import networks
from tests.gpu.networks import Case
from tests.gpu.rule import require


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        device = chosen_device(metafunc.config)
        rows = [
            (key, case, mode, backend)
            for case in networks.cases(tiny=device.type == "cpu")
            for key, mode, backend in networks.keys(case, device)
        ]
        metafunc.parametrize(("case", "mode", "backend"), [row[1:] for row in rows], ids=[row[0] for row in rows])


def test_network(
    case: Case,
    mode: Numerics,
    backend: str,
    device: torch.device,
    tiny: bool,
    record_property: Callable[[str, Any], None],
) -> None:
    require(networks.measure(case, mode, backend, device, tiny), record_property)


def test_every_task_of_every_network_is_tested() -> None:
    tasks = {(case.preset, case.task) for case in networks.cases(tiny=False)}
    assert {(preset, task) for preset in ("casia-b", "oumvlp", "gait3d") for task in networks.TASKS} < tasks


def test_errors_are_those_of_rounding() -> None:
    """Plain torch in float32 is near float64, and not float64 itself."""
    cpu = torch.device("cpu")
    found = networks.measure(networks.Case("casia-b", "training step"), Numerics(torch.float32), "auto", cpu, tiny=True)
    for errors in (found.errors, found.errors_of_torch):
        assert 0 < errors.output < 1e-5
        assert errors.gradient is not None
        assert 0 < errors.gradient < 1e-3
