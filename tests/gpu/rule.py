"""The rule for every answer on a device: at most twice the error of plain torch in the same arithmetic."""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.core.correctness import Bounds, Errors

# A backend may be off by so many times plain torch's own error in the same arithmetic.
TIMES_TORCH = 2.0
# Allowed even where torch happens to be nearer: a few roundings in float32, one or two in narrower types.
OUTPUT_FLOOR = {"float32": 5e-7, "tf32": 1e-3, "float16": 1e-3, "bfloat16": 8e-3}
GRADIENT_FLOOR = {"float32": 2e-6, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1.6e-2}


class Verdict(NamedTuple):
    """The errors of an answer and what they may be. torch_is_wrong: the fault of plain torch's own answer, or None."""

    errors: Errors
    errors_of_torch: Errors
    allowed: Bounds
    torch_is_wrong: str | None

    @property
    def fault(self) -> str | None:
        """The error that is not allowed, in words, or None."""
        return self.errors.fault(self.allowed)


def verdict(found: Errors, torchs: Errors, precision: str, bounds: Bounds) -> Verdict:
    """Apply the rule to `found`; where torch's own answer is wrong, `bounds` take its place."""
    output = _allowed(torchs.output, OUTPUT_FLOOR[precision], bounds.output)
    gradient = None
    if torchs.gradient is not None and bounds.gradient is not None:
        gradient = _allowed(torchs.gradient, GRADIENT_FLOOR[precision], bounds.gradient)
    return Verdict(found, torchs, Bounds(output, gradient), torchs.fault(bounds))


def require(found: Verdict, record_property: Callable[[str, Any], None]) -> None:
    """Record the figures as properties of the test, and fail it if the answer is wrong."""
    record_property("errors", found.errors._asdict())
    record_property("errors_of_torch", found.errors_of_torch._asdict())
    record_property("allowed", found.allowed._asdict())
    record_property("torch_is_wrong", found.torch_is_wrong)
    assert found.fault is None, found.fault


def _allowed(torchs: float, floor: float, bound: float) -> float:
    return max(TIMES_TORCH * torchs, floor) if torchs <= bound else bound
