"""Shapes and inputs that every operator is tested on, and how far rounding may take its results."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast import functional, reference
from tests.helpers.bounds import of_exponent, rounding


class Case(NamedTuple):
    """One shape: channels in and out, rows of the regions, columns, and the lengths of the sequences."""

    c_in: int
    c_out: int
    split: list[int]
    w: int
    lens: list[int]
    packed: bool

    def __str__(self) -> str:
        layout = "packed" if self.packed else "batch"
        return f"{self.c_in}to{self.c_out}-{'_'.join(map(str, self.split))}x{self.w}-{layout}{self.lens}"


CASES = [
    Case(1, 32, [64], 44, [3], False),
    Case(1, 5, [7], 11, [1], False),
    Case(3, 4, [1, 1, 3], 2, [2, 2], False),
    Case(16, 32, [5, 3], 22, [4], False),
    Case(17, 33, [13], 13, [5, 5, 5], False),
    Case(32, 16, [4, 12, 4], 22, [7, 7], False),
    Case(40, 7, [3, 1, 2], 1, [1, 2, 3, 4, 5, 7], True),
    Case(32, 64, [5, 3], 11, [7, 1, 9], True),
    Case(2, 3, [2, 1], 17, [1], True),
]
# These are for FTA, which takes three frames or more; both of its windows see the same where there are three.
LONG_ENOUGH = [case._replace(lens=[max(length, 4) for length in case.lens]) for case in CASES]


class Operator(NamedTuple):
    """An operator under test: its two forms, its inputs for a case and what it takes beside them."""

    name: str
    public: Callable[..., Tensor]
    definition: Callable[..., Tensor]
    inputs: Callable[[Case], list[Tensor]]
    cases: list[Case]

    def options(self, case: Case) -> dict[str, Any]:
        return {"seq_lens": case.lens if case.packed else None}

    def arguments(self, case: Case) -> Any:
        return case.split

    def bounds(self, case: Case, dtype: torch.dtype = torch.float32) -> list[float]:
        """Largest errors of the output and of the gradient of each input, relative to their norms."""
        return _BOUNDS[self.name](case, dtype)


def distinct_map(case: Case, seed: int = 0) -> Tensor:
    """A feature map [n, c, t, h, w] without two equal values: a maximum never ties, whatever the rounding."""
    n, t = (1, sum(case.lens)) if case.packed else (len(case.lens), case.lens[0])
    shape = (n, case.c_in, t, sum(case.split), case.w)
    size = torch.Size(shape).numel()
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return (order.double().view(shape) + 0.5) / size * 2 - 0.8


def _normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _arme_inputs(case: Case) -> list[Tensor]:
    return [distinct_map(case), _normal(len(case.split), case.c_out, case.c_in, 3, 3, 3) / (27 * case.c_in) ** 0.5]


def _astp_inputs(case: Case) -> list[Tensor]:
    m = len(case.split)
    return [distinct_map(case), _normal(case.c_out, case.c_in) / case.c_in**0.5, 6.5 + 0.3 * _normal(m)]


def _fta_inputs(case: Case) -> list[Tensor]:
    m, c = len(case.split), case.c_in
    return [distinct_map(case), _normal(m, 2, c, c) / c**0.5, _normal(m, 2, c)]


def _arme_bounds(case: Case, dtype: torch.dtype) -> list[float]:
    lengths = (27 * case.c_in, 27 * case.c_out, sum(case.lens) * sum(case.split) * case.w)
    return [rounding(dtype, length) for length in lengths]


def _astp_bounds(case: Case, dtype: torch.dtype) -> list[float]:
    """Bounds of ASTP, whose powers are exponentials.

    The output's exponent is at most log(1e6), as inputs are clamped to 1e-6; those of the gradients are at most p times
    that, and p is at most 7.5.
    """
    pooled = rounding(dtype, case.c_in + sum(case.split) * case.w)
    back = rounding(dtype, case.c_in + case.c_out + len(case.lens) * sum(case.split) * case.w)
    level = math.log(1e6)
    return [of_exponent(dtype, level) + pooled, *[of_exponent(dtype, 7.5 * level) + back] * 3]


def _fta_bounds(case: Case, dtype: torch.dtype) -> list[float]:
    """Bounds of FTA, whose gates are sums over channels of means over a map."""
    gate = sum(case.split) * case.w + case.c_in
    return [rounding(dtype, gate), *[rounding(dtype, sum(case.lens) * gate)] * 3]


_BOUNDS = {"arme": _arme_bounds, "astp": _astp_bounds, "fta": _fta_bounds}
OPERATORS = [
    Operator("arme", functional.arme, reference.arme, _arme_inputs, CASES),
    Operator("astp", functional.astp, reference.astp, _astp_inputs, CASES),
    Operator("fta", functional.fta, reference.fta, _fta_inputs, LONG_ENOUGH),
]
PAIRS = [(operator, case) for operator in OPERATORS for case in operator.cases]
PAIR_NAMES = [f"{operator.name}-{case}" for operator, case in PAIRS]
