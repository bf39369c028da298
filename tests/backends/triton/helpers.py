"""Shapes, and results of a function on the device, for the tests of Triton's kernels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.bounds import away_from_kink, distance_of_norms
from tests.helpers.cases import OPERATORS, Case

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Outputs nearer to zero, relative to the largest, send back no gradient: rounding may decide their signs.
NEAR_ZERO = 1e-4
# The channels of the first fill a step of the products, those of the second do not.
BATCH = Case(32, 16, [4, 1, 3], 9, [5, 5], False)
PACKED = Case(20, 12, [4, 1, 3], 9, [4, 7, 3], True)
# Tests whose outcome depends on no size take the fewest positions that fill two steps of products and two regions.
SMALL = Case(18, 17, [2, 1], 5, [3], False)
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)


def results(
    function: Callable[..., Tensor], inputs: list[Tensor], *arguments: Any, signs: Tensor | None = None, **options: Any
) -> list[Tensor]:
    """The output and the gradient of every input, along a fixed direction; computed on the device, returned here.

    The direction avoids outputs near zero: those of `signs`, or else of what is computed here.
    """
    leaves = [value.detach().to(DEVICE, copy=True).requires_grad_() for value in inputs]
    if options.get("support") is not None:
        options["support"] = options["support"].to(DEVICE)
    y = function(*leaves, *arguments, **options)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    direction = away_from_kink(direction, (y if signs is None else signs).detach().cpu(), NEAR_ZERO).to(y)
    return [value.detach().cpu() for value in (y, *torch.autograd.grad(y, leaves, direction))]


def assert_near(found: list[Tensor], expected: list[Tensor], bounds: list[float]) -> None:
    errors = [distance_of_norms(f, e) for f, e in zip(found, expected, strict=True)]
    assert all(error <= bound for error, bound in zip(errors, bounds, strict=True)), (errors, bounds)
