"""ASTP's projection and generalised mean in CUDA C++, run on the CPU, against the reference in float64."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hstl_fast import reference
from tests.csrc.cuda.operators import TF32, TYPES, Memory, Tables, call, normal
from tests.helpers.bounds import distance_of_norms, inherent, of_exponent, rounding

EPS32 = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Case:
    """Sequences, rows of the regions, columns, and channels; without output channels there is no projection."""

    n: int
    split: tuple[int, ...]
    w: int
    c_in: int
    c_out: int | None = None

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.c_in if self.c_out is None else self.c_out

    @property
    def positions(self) -> int:
        """Positions of the largest region."""
        return max(self.split) * self.w


CASES = {
    "one position": Case(1, (1,), 1, 8),
    "strips": Case(2, (1,) * 5, 13, 32),
    "no projection, odd channels": Case(1, (2, 3), 11, 7),
    "odd channels": Case(2, (3, 1, 7), 13, 5, 7),
    "whole vectors": Case(1, (2, 5), 11, 16, 24),
    "a matrix in two chunks": Case(1, (1, 2), 11, 72, 130),
    "many positions": Case(1, (13, 11), 29, 8, 40),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_dtype = pytest.mark.parametrize("dtype", TYPES, ids=str)


class Inputs(NamedTuple):
    """Maxima [n, h, w, c_in] in some type; the rest in float32: the matrix, the exponents, and a gradient [n, m, c]."""

    maximum: Tensor
    proj: Tensor | None
    p: Tensor
    grad: Tensor

    def tensors(self) -> list[Tensor]:
        """Those that are not None."""
        return [value for value in self if value is not None]


class Results(NamedTuple):
    """The pooled regions [n, m, c], the gradients of the projections and of the exponents."""

    pooled: Tensor
    gu: Tensor
    gp: Tensor


def inputs_of(case: Case, dtype: torch.dtype) -> Inputs:
    m = len(case.split)
    proj = None if case.c_out is None else (normal(case.c_out, case.c_in, seed=1) / case.c_in**0.5).float()
    return Inputs(
        normal(case.n, sum(case.split), case.w, case.c_in).to(dtype),
        proj,
        (6.5 + 0.3 * normal(m, seed=2)).float(),
        normal(case.n, m, case.outputs, seed=3).float(),
    )


def native(module: ModuleType, given: Inputs, split: Sequence[int], offset: int = 0) -> Results:
    memory, tables = Memory(offset), Tables([1], split)
    n, h, w, c_in = given.maximum.shape
    c_out = given.grad.shape[2]
    arguments = {
        "maximum": memory.given(given.maximum),
        "proj": None if given.proj is None else memory.given(given.proj),
        "p": memory.given(given.p),
        "regions": tables.regions,
        "sequences": n,
        "region_count": len(split),
        "h": h,
        "w": w,
        "c_in": c_in,
        "c_out": c_out,
        "type": TYPES[given.maximum.dtype],
    }
    pooled, by_power, grad = (
        memory.output(*given.grad.shape, dtype=torch.float32),
        memory.output(*given.grad.shape, dtype=torch.float32),
        memory.given(given.grad),
    )
    call(module, "astp_forward", pooled=pooled, by_power=by_power, **arguments)
    gu = memory.output(n, h, w, c_out, dtype=torch.float32)
    call(module, "astp_backward", gu=gu, grad=grad, pooled=pooled, region_of_row=tables.region_of_row, **arguments)
    if not given.maximum.isnan().any():
        memory.check()
    return Results(pooled, gu, (grad.double() * by_power.double()).sum((0, 2)))


def exact(split: Sequence[int], projected: bool, *inputs: Tensor) -> Results:
    """The reference's results, in float64 for inputs in float64."""
    maximum, p, grad = inputs[0], inputs[-2].detach().requires_grad_(), inputs[-1]
    u = (maximum @ inputs[1].T if projected else maximum).detach().requires_grad_()
    regions = zip(u.split(list(split), 1), p, strict=True)
    pooled = torch.stack([reference.generalised_mean(rows.flatten(1, 2).mT, power) for rows, power in regions], 1)
    gu, gp = torch.autograd.grad(pooled, (u, p), grad)
    return Results(pooled.detach(), gu, gp)


def assert_near(case: Case, given: Inputs, found: Results) -> None:
    """Assert that results differ from the reference's by no more than float32's roundings.

    An exponent is at most p log(1e6), and divided by p where a mean's root is taken. Sums have as many terms as there
    are input channels, and positions in a region. The derivative by an exponent is the difference of two logarithms, of
    the mean and of what it is the mean of, times the mean over p.
    """
    function = partial(exact, case.split, case.c_out is not None)
    expected = function(*(value.double() for value in given.tensors()))
    level, terms = math.log(1e6), case.positions + (case.c_in if case.c_out is not None else 0)
    pooled, gu, gp = inherent(function, given.tensors(), torch.float32)
    sums = rounding(torch.float32, terms)
    powers = of_exponent(torch.float32, 7.5 * level) + sums
    assert distance_of_norms(found.pooled, expected.pooled) <= max(of_exponent(torch.float32, level) + sums, 4 * pooled)
    assert distance_of_norms(found.gu, expected.gu) <= max(powers, 4 * gu)
    differences = given.grad.abs() * expected.pooled * (1 + expected.pooled.log().abs())
    size = (differences.sum((0, 2)) / given.p).norm()
    assert (found.gp - expected.gp).norm() <= max(powers * size, 4 * gp * expected.gp.norm())


@each_dtype
@pytest.mark.parametrize("multiprocessors", [1, 132])
@each_case
def test_values_and_gradients(case: Case, multiprocessors: int, dtype: torch.dtype, module: ModuleType) -> None:
    # More multiprocessors get narrower blocks.
    module.shim.options(multiprocessors=multiprocessors)
    given = inputs_of(case, dtype)
    assert_near(case, given, native(module, given, case.split))


@each_dtype
@pytest.mark.parametrize("name", ["strips", "whole vectors"])
def test_misaligned_memory(name: str, dtype: torch.dtype, module: ModuleType) -> None:
    case = CASES[name]
    given = inputs_of(case, dtype)
    assert all(map(torch.equal, native(module, given, case.split, offset=1), native(module, given, case.split)))


def test_order_of_threads_does_not_matter(module: ModuleType) -> None:
    case = CASES["many positions"]
    given = inputs_of(case, torch.float16)
    plain = native(module, given, case.split)
    for seed in (1, 2):
        module.shim.options(seed=seed, late=False)
        assert all(map(torch.equal, native(module, given, case.split), plain))


def test_tf32_is_multiplied_as_float32(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["whole vectors"]
    given = inputs_of(case, torch.float32)
    expected = native(module, given, case.split)
    monkeypatch.setitem(TYPES, torch.float32, TF32)
    assert all(map(torch.equal, native(module, given, case.split), expected))


def plain_inputs(case: Case, value: float, p: float) -> Inputs:
    m = len(case.split)
    maximum = torch.full((case.n, sum(case.split), case.w, case.c_in), value)
    return Inputs(maximum, None, torch.full((m,), p), torch.ones(case.n, m, case.c_in))


@pytest.mark.parametrize("value", [-1.0, -math.inf, 0.0, 5e-7, 1.0, 3e4])
@pytest.mark.parametrize("p", [0.5, 6.5, 40.0])
def test_constant_maps_pool_to_their_level(value: float, p: float, module: ModuleType) -> None:
    case, level = CASES["strips"], max(value, 1e-6)
    found = native(module, plain_inputs(case, value, p), case.split)
    exponent = abs(math.log(level))
    bound = of_exponent(torch.float32, exponent * max(p, 1) / p + exponent) + rounding(torch.float32, case.w + 8)
    assert distance_of_norms(found.pooled, torch.full_like(found.pooled, level)) <= bound
    # The mean of equal values is that value whatever the exponent is.
    assert found.gp.abs().max() <= found.pooled.sum() * (exponent + 1) / p * EPS32 * 8
    if value <= 1e-6:
        assert not found.gu.any()
    else:
        back = bound * max(p, 1) + of_exponent(torch.float32, exponent * abs(p - 1))
        assert distance_of_norms(found.gu, torch.full_like(found.gu, 1 / case.w)) <= back


def test_negative_values_take_no_gradient(module: ModuleType) -> None:
    case = CASES["strips"]
    given = inputs_of(case, torch.float32)
    gu = native(module, given, case.split).gu
    assert torch.equal(gu == 0, given.maximum < 1e-6)


def test_nan_stays_in_its_region_and_channel(module: ModuleType) -> None:
    case = CASES["no projection, odd channels"]
    given = inputs_of(case, torch.float32)
    clean = native(module, given, case.split)
    # One position of the first region; in another channel, all positions of the second.
    given.maximum[0, 1, 5, 2] = math.nan
    given.maximum[0, 2:, :, 4] = math.nan
    dirty = native(module, given, case.split)
    expected = torch.zeros_like(clean.pooled, dtype=torch.bool)
    expected[0, 0, 2] = expected[0, 1, 4] = True
    assert torch.equal(dirty.pooled.isnan(), expected)
    assert torch.equal(dirty.pooled[~expected], clean.pooled[~expected])
