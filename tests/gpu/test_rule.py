"""The rule for every answer on a device: at most twice the error of plain torch in the same arithmetic."""

import pytest

from benchmarks.core.correctness import Bounds, Errors
from tests.gpu.rule import verdict

BOUNDS = Bounds(5e-5, 1e-4)
TORCHS = Errors(1e-6, 1e-5)
NAN = float("nan")


@pytest.mark.parametrize(
    ("output", "gradient", "torchs", "fault"),
    [
        (1.9e-6, 1.9e-5, TORCHS, None),
        (2.1e-6, 1.9e-5, TORCHS, "output"),
        (1.9e-6, 2.1e-5, TORCHS, "gradient"),
        (4e-7, 1.9e-6, Errors(0.0, 0.0), None),
        (NAN, 0.0, TORCHS, "output"),
        (0.5, 0.0, Errors(0.4, 0.0), "output"),
        (4e-5, 0.0, Errors(NAN, 0.0), None),
    ],
    ids=["twice", "more", "more in gradients", "roundings", "nan", "torch is wrong too", "torch is nan"],
)
def test_twice_torchs_error_is_allowed(output: float, gradient: float, torchs: Errors, fault: str | None) -> None:
    found = verdict(Errors(output, gradient), torchs, "float32", BOUNDS).fault
    assert found is None if fault is None else found is not None and found.startswith(fault)


def test_a_fault_of_torch_is_named() -> None:
    assert verdict(TORCHS, TORCHS, "float32", BOUNDS).torch_is_wrong is None
    suspect = verdict(Errors(4e-5, 0.0), Errors(NAN, 0.0), "float32", BOUNDS)
    assert suspect.torch_is_wrong == "output is off by nan, 5e-05 allowed"
