"""The gate before the clock: an answer's distance from the float64 reference."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Answer(NamedTuple):
    """What a workload asks for: outputs (or losses) and, in training, gradients."""

    outputs: Sequence[Tensor]
    gradients: Sequence[Tensor] = ()


class Bounds(NamedTuple):
    """The largest errors that count as right; None where there are no gradients."""

    output: float
    gradient: float | None = None


class Errors(NamedTuple):
    """The worst output, as its largest difference over its largest value, and the worst gradient, as the norm of its
    difference over its norm (None where there are none)."""

    output: float
    gradient: float | None = None

    def fault(self, bounds: Bounds) -> str | None:
        """What is wrong, or None; a NaN is wrong."""
        for name, error, bound in zip(self._fields, self, bounds, strict=True):
            if error is not None and (bound is None or not error <= bound):
                return f"{name} is off by {error:.1e}, {bound} allowed"
        return None


def errors(answer: Answer, truth: Answer) -> Errors:
    """Distance of `answer` from `truth`; infinite where shapes differ or something is missing."""
    outputs = _worst(answer.outputs, truth.outputs, lambda x: x.abs().max())
    gradients = _worst(answer.gradients, truth.gradients, lambda x: x.norm()) if truth.gradients else None
    return Errors(outputs, gradients)


def _worst(got: Sequence[Tensor], expected: Sequence[Tensor], size: Callable[[Tensor], Tensor]) -> float:
    if [x.shape for x in got] != [x.shape for x in expected]:
        return float("inf")
    distances = [size(g.detach().double() - e.detach()) / size(e.detach()) for g, e in zip(got, expected)]
    return float(torch.stack(distances).max())
