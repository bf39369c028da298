"""The correctness check before any timing: the distance of an answer from the float64 reference."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Answer(NamedTuple):
    """The result of a workload: outputs (or losses) and, in training, gradients."""

    outputs: Sequence[Tensor]
    gradients: Sequence[Tensor] = ()


class Bounds(NamedTuple):
    """The largest errors that count as correct; the gradient's is None where there are no gradients."""

    output: float
    gradient: float | None = None


class Errors(NamedTuple):
    """Distances from the float64 reference.

    output: the worst output's largest difference over its largest value. gradient: the worst gradient's norm of the
    difference over its norm, None where there are no gradients.
    """

    output: float
    gradient: float | None = None

    def fault(self, bounds: Bounds) -> str | None:
        """The first error beyond its bound in words, or None; NaN is beyond every bound."""
        for name, error, bound in zip(self._fields, self, bounds, strict=True):
            if error is not None and (bound is None or not error <= bound):
                return f"{name} is off by {error:.1e}, {bound} allowed"
        return None


def errors(answer: Answer, expected: Answer) -> Errors:
    """Distance of `answer` from `expected`; infinite where shapes differ or something is missing."""
    outputs = _worst(answer.outputs, expected.outputs, lambda x: x.abs().max())
    gradients = _worst(answer.gradients, expected.gradients, lambda x: x.norm()) if expected.gradients else None
    return Errors(outputs, gradients)


def output_gradient(y: Tensor, margin: float) -> Tensor:
    """A random gradient for the output `y`, exact in every element type.

    It is zero where `y` is nearer to zero than `margin` times its largest value: rounding may turn LeakyReLU's slope
    there, and two right answers would differ.
    """
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(y.shape, generator=generator).bfloat16().float().to(y.device)
    return gradient.where(y.abs() > margin * y.abs().max(), 0)


def _worst(got: Sequence[Tensor], expected: Sequence[Tensor], size: Callable[[Tensor], Tensor]) -> float:
    if [x.shape for x in got] != [x.shape for x in expected]:
        return float("inf")
    distances = [size(g.detach().double() - e.detach()) / size(e.detach()) for g, e in zip(got, expected)]
    return float(torch.stack(distances).max())
