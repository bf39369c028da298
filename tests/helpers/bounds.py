"""Bounds of rounding errors that hold on every processor, whatever the order in which it adds.

They are relative to the largest value of a tensor or to its norm, never to single elements: an element may be small
because large terms cancelled.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# `inherent` moves the inputs in this many ways.
DRAWS = 4
# Between a clip and its embedding in the largest preset there are about 22,000 roundings: 27 c_in of every convolution,
# the projections, the means over a map and the separate FC layer.
NETWORK = 25_000


def rounding(dtype: torch.dtype, length: int) -> float:
    """The largest error, relative to the largest value, of values that `length` roundings lead to.

    Each rounding moves a partial sum, which is hardly larger than the largest value, up or down by at most half of eps,
    and all of them together move it like the steps of a random walk. A sum of n products takes n roundings. A value
    that is computed by several sums one after another takes as many as all of them.
    """
    return torch.finfo(dtype).eps / 2 * length**0.5


def of_exponent(dtype: torch.dtype, exponent: float) -> float:
    """The relative error of exp(e) whose exponent, at most `exponent` in magnitude, was rounded."""
    return torch.finfo(dtype).eps / 2 * exponent


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    return _ratio((found.double() - expected.double()).abs().max(), expected.double().abs().max())


def distance_of_norms(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference, relative to the norm of what is expected."""
    assert found.shape == expected.shape
    return _ratio((found.double() - expected.double()).norm(), expected.double().norm())


def _ratio(difference: Tensor, size: Tensor) -> float:
    return 0.0 if difference == 0 else (difference / size).item()


def inherent(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], dtype: torch.dtype) -> list[float]:
    """How far each result moves when every value of the inputs moves by half a unit in its last place in `dtype`.

    No algorithm that computes in `dtype` can be expected to err less, however the terms of a sum cancel. `function`
    computes in float64 here, so that the answer is the same everywhere. Equal values move equally: ties stay ties.
    """
    exact = [value.detach().double() for value in inputs]
    expected = function(*exact)
    half = torch.finfo(dtype).eps / 2
    farthest = [half] * len(expected)
    for draw in range(1, DRAWS + 1):
        moved = function(*(value * (1 + half * (1e5 * draw * value).sin().sign()) for value in exact))
        distances = [distance_of_norms(new, old) for new, old in zip(moved, expected, strict=True)]
        farthest = [max(pair) for pair in zip(farthest, distances, strict=True)]
    return farthest


def away_from_kink(direction: Tensor, y: Tensor, bound: float) -> Tensor:
    """The direction, but 0 where LeakyReLU's output `y` may have another sign after an error of `bound`."""
    return direction.where(y.abs() > bound * y.abs().max(), 0)
