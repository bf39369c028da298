"""The native frame maximum and ASTP, against `hstl_fast.reference` in float64."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.csrc.cpu.helpers import (
    CASES,
    EPS32,
    Buffers,
    Case,
    Random,
    Trial,
    address,
    assert_as_good_as_torch,
    both_dtypes,
    compare,
    cpu,
)
from tests.csrc.cpu.operators import astp_native, astp_torch, astp_trial, blank_support


@both_dtypes
@pytest.mark.parametrize("projected", [True, False], ids=["proj", "no-proj"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_astp(case: Case, projected: bool, dtype: torch.dtype, isa: str) -> None:
    compare(partial(astp_trial, case, projected), partial(astp_native, case), dtype)


def plain_astp_trial(case: Case, x: Tensor, p: list[float], seed: int = 0) -> Trial:
    gradient = Random(x.dtype, seed)(len(case.seq_lens), len(case.split), case.c_in)
    return Trial({"x": x, "p": torch.tensor(p, dtype=x.dtype)}, gradient, astp_torch(case))


@both_dtypes
def test_first_maximum_wins(dtype: torch.dtype, isa: str) -> None:
    case = Case((1, 7, 4), (3,), 5, 17, 17)
    x = Random(dtype)(case.frames, case.h, case.w, case.c_in).round()
    results = astp_native(case, plain_astp_trial(case, x, [6.5]))
    for n, sequence in enumerate(x.split(case.seq_lens)):
        assert torch.equal(results["maximum"][n], sequence.amax(0))
        first = torch.from_numpy(sequence.numpy().argmax(0))
        assert torch.equal(results["index"][n].long(), first)


@both_dtypes
def test_a_nan_or_infinity_in_any_frame_is_the_maximum(dtype: torch.dtype, isa: str) -> None:
    """Without frame indices NaN is not compared but noticed, also where infinities of both signs sum to it."""
    case = Case((14, 3, 1), (3,), 7, 17, 17)
    x = Random(dtype)(case.frames, case.h, case.w, case.c_in)
    firsts = [0, 14, 17]
    for n, (first, length) in enumerate(zip(firsts, case.seq_lens)):
        for t in range(length):
            x[first + t, n, t % 7, t] = math.nan
            x[first + t, 2, t % 7, t] = -math.inf
        x[first, 2, 3], x[first + length - 1, 2, 3, :4] = -math.inf, math.inf
    expected = torch.stack([sequence.amax(0) for sequence in x.split(case.seq_lens)])
    for support in (None, torch.ones(case.frames, case.h, case.w, dtype=torch.uint8)):
        maximum = torch.full(expected.shape, 5.0, dtype=dtype)
        sizes = (case.seq_lens, case.h, case.w, case.c_in, dtype.itemsize, 2)
        cpu.frame_maximum(address(maximum), 0, address(x), *sizes, address(support))
        assert torch.equal(maximum.isnan(), expected.isnan())
        assert torch.equal(maximum.nan_to_num(7.0), expected.nan_to_num(7.0))


@both_dtypes
@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-6, 1e-7])
def test_astp_of_nothing_is_the_clamp(value: float, dtype: torch.dtype, isa: str) -> None:
    case = Case((2,), (3, 2), 7, 17, 17)
    trial = plain_astp_trial(case, torch.full((2, 5, 7, 17), value, dtype=dtype), [6.5, 3.0])
    results = astp_native(case, replace(trial, gradient=trial.gradient.abs()))
    assert ((results["y"] / 1e-6 - 1).abs() <= 8 * EPS32).all()
    assert (results["gp"].abs() <= 1e-11).all()
    reached = results["gx"] > 0
    assert (reached[0].all() and not reached[1].any()) if value == 1e-6 else (results["gx"] == 0).all()


# Regions of several chunks of positions, and of one.
WITH_BACKGROUND = [CASES[3], CASES[6], Case((3, 2), (9, 1, 4), 37, 33, 70)]


@both_dtypes
@pytest.mark.parametrize("projected", [True, False], ids=["proj", "no-proj"])
@pytest.mark.parametrize("case", WITH_BACKGROUND, ids=str)
def test_astp_of_maps_that_are_0_at_many_positions(case: Case, projected: bool, dtype: torch.dtype, isa: str) -> None:
    def trial(dtype: torch.dtype, seed: int) -> Trial:
        found = astp_trial(case, projected, dtype, seed)
        x = found.inputs["x"] * blank_support(case)[..., None]
        return replace(found, inputs={**found.inputs, "x": x})

    compare(trial, partial(astp_native, case), dtype)


@both_dtypes
def test_a_weight_that_is_not_finite_meets_the_background_too(dtype: torch.dtype, isa: str) -> None:
    """The product of infinity and 0 is NaN, in the channel of that weight alone."""
    case = Case((1,), (3, 2), 7, 17, 20)
    maximum, proj, p = (
        torch.zeros(1, 5, 7, 17, dtype=dtype),
        torch.ones(20, 17, dtype=dtype),
        torch.ones(2, dtype=dtype),
    )
    proj[4, 3] = math.inf
    memory, y = Buffers(), torch.empty(1, 2, 20, dtype=dtype)
    sizes = (case.split, case.w, case.c_in, case.c_out, dtype.itemsize, 2)
    workspace = memory.workspace(cpu.astp_workspace(1, *sizes))
    cpu.astp_forward(address(y), address(maximum), address(proj), address(p), workspace, 0, [1], *sizes)
    assert y[..., 4].isnan().all()
    y[..., 4] = 1e-6
    assert ((y / 1e-6 - 1).abs() <= 8 * EPS32).all()


@both_dtypes
@pytest.mark.parametrize("p", [6.5, 1.0, 40.0, -3.0])
def test_astp_where_powers_would_underflow(p: float, dtype: torch.dtype, isa: str) -> None:
    """The power 1e-6 ^ 6.5 = 1e-39 is subnormal in float32, and 1e-6 ^ 40 underflows to 0."""
    case = Case((1,), (4,), 5, 16, 16)

    def trial(dtype: torch.dtype, seed: int) -> Trial:
        return plain_astp_trial(case, 1e-6 * (1 + Random(dtype, seed)(1, 4, 5, 16).abs()), [p], seed)

    compare(trial, partial(astp_native, case), dtype)


def test_astp_spans_the_whole_range_of_values(isa: str) -> None:
    case = Case((1,), (8,), 9, 16, 16)
    trials = [plain_astp_trial(case, (Random(torch.float32, s)(1, 8, 9, 16) * 8).exp(), [2.0], s) for s in range(3)]
    assert_as_good_as_torch(trials, partial(astp_native, case))


@both_dtypes
@pytest.mark.parametrize("case", [*CASES, Case((12, 34), (17, 4), 23, 48, 48)], ids=str)
def test_frame_maximum_with_a_support(case: Case, dtype: torch.dtype, isa: str) -> None:
    """The background enters every maximum as 0, at its own frame."""
    trial, support = astp_trial(case, False, dtype), blank_support(case)
    inputs = {**trial.inputs, "x": trial.inputs["x"] * support[..., None]}
    zeroed = replace(trial, inputs=inputs)
    expected, got = astp_native(case, zeroed), astp_native(case, zeroed, support=support)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
