"""Cases, guarded memory and the comparison with float64, which the tests of the native CPU functions share.

Outputs lie between guard words and are full of NaN before the call; workspaces have exactly the size asked for and
guard words of their own. Maps are `[F, H, W, C]` as in csrc/cpu/operators.h.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor

from hstl_fast.backends.cpu import library
from tests.helpers.bounds import rounding

if library.cpu() is None:
    pytest.skip(library.cpu_error(), allow_module_level=True)
cpu = library.require_cpu()

# Every buffer has this many guard elements before it and after it.
GUARD = 32
GUARD_VALUE = 77
EPS32 = 2.0**-23


@dataclass(frozen=True)
class Case:
    seq_lens: tuple[int, ...]
    split: tuple[int, ...]
    w: int
    c_in: int
    c_out: int

    @property
    def frames(self) -> int:
        return sum(self.seq_lens)

    @property
    def h(self) -> int:
        return sum(self.split)

    def __str__(self) -> str:
        return f"{self.seq_lens}-{self.split}-{self.w}-{self.c_in}-{self.c_out}".replace(" ", "")


CASES = [
    Case((1, 2, 3, 4, 5, 7), (3, 1, 1), 7, 3, 5),
    Case((2,), (5,), 1, 1, 1),
    Case((1,), (1,), 3, 17, 40),
    Case((4, 4), (7, 1, 3), 13, 40, 17),
    Case((5,), (11,), 29, 1, 32),
    Case((3, 7), (1, 1, 1, 4), 11, 32, 64),
    Case((4,), (6, 2), 44, 33, 3),
]
FTA_CASES = [case for case in CASES if max(case.seq_lens) >= 3]


class Buffers:
    """Output and workspace memory with guard words on both sides."""

    def __init__(self) -> None:
        self.wholes: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def output(self, *shape: int, dtype: torch.dtype) -> Tensor:
        tensor = self._guarded(math.prod(shape), dtype).view(shape).fill_(math.nan if dtype.is_floating_point else -1)
        self.outputs.append(tensor)
        return tensor

    def workspace(self, size: int) -> int:
        return self._guarded(size, torch.uint8).data_ptr()

    def check(self) -> None:
        for whole in self.wholes:
            assert (whole[:GUARD] == GUARD_VALUE).all(), "wrote before the buffer"
            assert (whole[-GUARD:] == GUARD_VALUE).all(), "wrote past the buffer"
        for tensor in self.outputs:
            assert not tensor.isnan().any() if tensor.is_floating_point() else (tensor >= 0).all(), "left unwritten"

    def _guarded(self, size: int, dtype: torch.dtype) -> Tensor:
        whole = torch.full((size + 2 * GUARD,), GUARD_VALUE, dtype=dtype)
        self.wholes.append(whole)
        return whole[GUARD : GUARD + size]


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class Random:
    """Normal numbers, the same for every dtype but for rounding."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator).to(self.dtype)


def as_map(x: Tensor) -> Tensor:
    """The map `[F, H, W, C]` as the packed `[1, C, F, H, W]` of the reference."""
    return x.permute(3, 0, 1, 2)[None]


def from_map(x: Tensor) -> Tensor:
    """The packed `[1, C, F, H, W]` of the reference as `[F, H, W, C]`."""
    return x[0].permute(1, 2, 3, 0)


def error(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value of the reference."""
    return ((got.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
Results = dict[str, Tensor]


@dataclass(frozen=True)
class Trial:
    """Inputs of an operator, the gradient that arrives at its output, and the operator in torch."""

    inputs: Results
    gradient: Tensor
    forward: Callable[..., Tensor]
    # Each output is a sum of this many terms.
    length: int = 1

    @cached_property
    def expected(self) -> Results:
        return torch_results(self.forward, self.inputs, self.gradient, torch.float64)

    @cached_property
    def torch_errors(self) -> dict[str, float]:
        own = torch_results(self.forward, self.inputs, self.gradient, self.gradient.dtype)
        return {name: error(own[name], expected) for name, expected in self.expected.items()}

    def errors(self, native: Results) -> dict[str, float]:
        return {name: error(native[name], expected) for name, expected in self.expected.items()}


def assert_exact(trial: Trial, native: Results) -> None:
    """Assert that results in float64 differ from the reference by rounding alone."""
    assert trial.gradient.dtype == torch.float64
    for name, each in trial.errors(native).items():
        assert each <= 1e-13, name


def assert_as_good_as_torch(trials: list[Trial], run: Callable[[Trial], Results]) -> None:
    """Assert that results in float32 err at most twice as much as torch, or as the length of their sums allows.

    Both errors are medians over the trials.
    """
    errors = [trial.errors(run(trial)) for trial in trials]
    for name in errors[0]:
        torch_own = statistics.median(trial.torch_errors[name] for trial in trials)
        least = max(4 * EPS32, rounding(torch.float32, trials[0].length))
        assert statistics.median(each[name] for each in errors) <= max(2 * torch_own, least), name


def compare(trial_of: Callable[[torch.dtype, int], Trial], run: Callable[[Trial], Results], dtype: torch.dtype) -> None:
    """Assert that float64 is exact and that float32, over three seeds, is as good as torch."""
    if dtype == torch.float64:
        trial = trial_of(dtype, 0)
        assert_exact(trial, run(trial))
    else:
        assert_as_good_as_torch([trial_of(dtype, seed) for seed in range(3)], run)


def torch_results(forward: Callable[..., Tensor], inputs: Results, gradient: Tensor, dtype: torch.dtype) -> Results:
    """Results of torch in `dtype`: the output as `y`, and the gradient of each input `name` as `gname`."""
    leaves = {name: tensor.to(dtype, copy=True).requires_grad_() for name, tensor in inputs.items()}
    y = forward(**leaves)
    y.backward(gradient.to(dtype))
    return {"y": y.detach(), **{f"g{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}}
