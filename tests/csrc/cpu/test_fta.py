"""The native FTA, against `hstl_fast.reference` in float64."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.csrc.cpu.helpers import EPS32, FTA_CASES, Buffers, Case, Trial, address, both_dtypes, compare, cpu, error
from tests.csrc.cpu.operators import blank_support, fta_native, fta_trial, window_support


def fta_trial_with_ties(case: Case, dtype: torch.dtype, seed: int = 0) -> Trial:
    trial = fta_trial(case, dtype, seed)
    return replace(trial, inputs={**trial.inputs, "x": trial.inputs["x"].round()})


@both_dtypes
@pytest.mark.parametrize("case", FTA_CASES, ids=str)
def test_fta(case: Case, dtype: torch.dtype, isa: str) -> None:
    compare(partial(fta_trial, case), partial(fta_native, case), dtype)


@both_dtypes
def test_fta_first_maximum_takes_the_gradient(dtype: torch.dtype, isa: str) -> None:
    case = Case((7, 3, 5), (2, 1), 5, 17, 17)
    compare(partial(fta_trial_with_ties, case), partial(fta_native, case), dtype)


@both_dtypes
@pytest.mark.parametrize("case", [*FTA_CASES, Case((11,), (9, 3), 19, 64, 64)], ids=str)
def test_fta_skips_the_background(case: Case, dtype: torch.dtype, isa: str) -> None:
    """NaN changes nothing in the input where no frame of its sequence is inside, nor in the gradient outside."""
    trial, x_support = fta_trial(case, dtype), blank_support(case)
    support = window_support(case, x_support)
    x = trial.inputs["x"] * x_support[..., None]
    clean = replace(trial, inputs={**trial.inputs, "x": x}, gradient=trial.gradient * support[..., None])
    never = torch.cat([s.amax(0, keepdim=True).expand_as(s) for s in x_support.split(case.seq_lens)]) == 0
    inputs = {**trial.inputs, "x": x.masked_fill(never[..., None], math.nan)}
    gradient = trial.gradient.masked_fill(support[..., None] == 0, math.nan)
    expected = fta_native(case, clean)
    got = fta_native(case, replace(trial, inputs=inputs, gradient=gradient), support=support)
    for name in ("y", "z", "gw", "gb"):
        assert torch.equal(expected[name], got[name]), name
    assert torch.equal(expected["gx"][x_support == 1], got["gx"][x_support == 1])


@both_dtypes
@pytest.mark.parametrize("case", [*FTA_CASES, Case((11,), (9, 3), 19, 64, 64)], ids=str)
def test_fta_reads_inside_the_support_of_its_input_alone(case: Case, dtype: torch.dtype, isa: str) -> None:
    """NaN outside the support of every single frame changes nothing forward."""
    trial, x_support = fta_trial(case, dtype), blank_support(case)
    (x, w, b), support = trial.inputs.values(), window_support(case, x_support)
    sizes = (case.seq_lens, case.split, case.w, case.c_in, x.dtype.itemsize, 2)
    results = []
    for background, supports in ((0.0, (0, 0)), (math.nan, (address(support), address(x_support)))):
        memory = Buffers()
        y = memory.output(*trial.gradient.shape, dtype=dtype)
        z = memory.output(len(y), len(case.split), case.c_in, dtype=dtype)
        given = x.masked_fill(x_support[..., None] == 0, background)
        workspace = memory.workspace(cpu.fta_workspace(*sizes))
        weights = (address(w), address(b), workspace)
        cpu.fta_forward(address(y), address(z), address(given), *weights, *sizes, *supports)
        memory.check()
        results.append((y, z))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_fta_of_three_frames_has_no_choice_to_learn(isa: str) -> None:
    """Both windows see the same frames: a = b, whatever the gate says."""
    case = Case((3, 3), (2,), 5, 16, 16)
    trial = fta_trial(case, torch.float32)
    results = fta_native(case, trial)
    assert error(results["y"], torch.stack([s.amax(0) for s in trial.inputs["x"].split(3)])) <= EPS32
    assert (results["gw"] == 0).all()
    assert (results["gb"] == 0).all()
