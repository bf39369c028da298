"""Shapes and inputs that every operator is tested on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast import functional, reference


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
LONG_ENOUGH = [case._replace(lens=[max(length, 4) for length in case.lens]) for case in CASES]
"""For FTA, whose windows hold three frames; where a sequence is no longer than that, both see the same."""


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


OPERATORS = [
    Operator("arme", functional.arme, reference.arme, _arme_inputs, CASES),
    Operator("astp", functional.astp, reference.astp, _astp_inputs, CASES),
    Operator("fta", functional.fta, reference.fta, _fta_inputs, LONG_ENOUGH),
]
PAIRS = [(operator, case) for operator in OPERATORS for case in operator.cases]
PAIR_NAMES = [f"{operator.name}-{case}" for operator, case in PAIRS]
