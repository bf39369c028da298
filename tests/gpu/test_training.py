"""Many training steps in float16 on every backend with kernels: losses stay finite, and few steps are skipped."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.conftest import chosen_device
from tests.gpu import training
from tests.gpu.training import Case, Steps


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        device = chosen_device(metafunc.config)
        rows = [(key, case, backend) for case in training.CASES for key, backend in training.keys(case, device)]
        metafunc.parametrize(("case", "backend"), [row[1:] for row in rows], ids=[row[0] for row in rows])


def test_many_steps(
    case: Case, backend: str, device: torch.device, tiny: bool, record_property: Callable[[str, Any], None]
) -> None:
    found = training.measure(case, backend, device, tiny)
    record_property("steps", len(found.losses))
    record_property("skipped", found.skipped)
    record_property("first_loss", found.losses[0])
    record_property("last_loss", found.losses[-1])
    assert training.fault(found) is None
    if case.silhouettes == "people":
        assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_losses_that_are_not_finite_fail(wrong: float) -> None:
    assert training.fault(Steps([1.0, wrong], 0)) == f"the loss of step 1 of 2 is {wrong}"


def test_many_skipped_steps_fail() -> None:
    assert training.fault(Steps([1.0, 0.5], 20)) is None
    assert training.fault(Steps([1.0, 1.0], 21)) == "21 of 2 steps were skipped, 20 may be"
