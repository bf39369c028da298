"""The native ARME by direct convolution, against `hstl_fast.reference` in float64."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.csrc.cpu.helpers import (
    CASES,
    Buffers,
    Case,
    Trial,
    address,
    assert_as_good_as_torch,
    assert_exact,
    both_dtypes,
    compare,
    cpu,
)
from tests.csrc.cpu.operators import (
    Support,
    arme_native,
    arme_native_supported,
    arme_torch,
    arme_trial,
    grown,
    maxima,
    prepacked_weights,
    random_support,
    supported_trial,
)


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
def test_arme(case: Case, dtype: torch.dtype, isa: str) -> None:
    compare(partial(arme_trial, case), partial(arme_native, case), dtype)


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.2])
def test_arme_slopes(slope: float) -> None:
    case = CASES[0]
    trial = replace(arme_trial(case, torch.float64), forward=arme_torch(case, None if slope == 1 else slope))
    assert_exact(trial, arme_native(case, trial, slope))


def test_arme_gradient_takes_the_slope_where_the_output_is_zero() -> None:
    case = Case((3,), (4,), 5, 3, 2)
    trial = arme_trial(case, torch.float64)
    trial.inputs["x"][:, :, :3] = 0
    assert (trial.expected["y"] == 0).any()
    assert_exact(trial, arme_native(case, trial))


def test_arme_many_frames_and_wide_channels() -> None:
    # These sizes take several blocks and groups of frames, and leave partial chunks and panels.
    case = Case((40, 3), (17,), 23, 72, 96)
    assert_as_good_as_torch([arme_trial(case, torch.float32)], partial(arme_native, case))


def test_arme_keeps_subnormal_numbers(isa: str) -> None:
    case = Case((1,), (1,), 5, 1, 1)
    x = torch.full((1, 1, 5, 1), 1e-39)
    w = torch.zeros(1, 1, 1, 3, 3, 3)
    w[0, 0, 0, 1, 1, 1] = 1
    results = arme_native(case, Trial({"x": x, "w": w}, x, arme_torch(case)))
    assert torch.equal(results["y"], x)
    assert torch.equal(results["gx"], x)


@both_dtypes
@pytest.mark.parametrize("share", [0.03, 0.5])
@pytest.mark.parametrize("case", [*CASES[:-1], Case((9, 4), (12, 5), 44, 32, 32)], ids=str)
def test_arme_skips_the_background(case: Case, share: float, dtype: torch.dtype, isa: str) -> None:
    trial, support = supported_trial(case, share, dtype)
    results = arme_native_supported(case, trial, support)
    if (support.x == 0).all():
        assert all((tensor == 0).all() for tensor in results.values())
    elif dtype == torch.float64:
        assert_exact(trial, results)
    else:
        assert_as_good_as_torch([trial], lambda _: results)


def test_arme_of_an_empty_support_is_zero(isa: str) -> None:
    case = CASES[3]
    nothing = torch.zeros(case.frames, case.h, case.w, dtype=torch.uint8)
    results = arme_native_supported(case, arme_trial(case, torch.float32), Support(nothing, nothing))
    assert all((tensor == 0).all() for tensor in results.values())


# Silhouettes that are one block, and that are several by rows and frames.
SILHOUETTES = [*(case for case in CASES if case.c_in == 1), Case((40, 3), (6, 5), 20, 1, 33)]


@both_dtypes
@pytest.mark.parametrize("supported", [False, True])
@pytest.mark.parametrize("case", SILHOUETTES, ids=str)
def test_silhouettes_are_their_own_scale_and_support(case: Case, supported: bool, dtype: torch.dtype, isa: str) -> None:
    """The result equals the direct convolution of x / 255, bit for bit, and so does the maximum over its frames."""
    generator, memory = torch.Generator().manual_seed(5), Buffers()
    silhouettes = torch.randint(0, 256, (case.frames, case.h, case.w), dtype=torch.uint8, generator=generator)
    silhouettes *= random_support(case.frames, case.h, case.w, share=0.02)
    x, inside = silhouettes.to(dtype) / 255, (silhouettes > 0).to(torch.uint8)
    around = grown(case, inside)
    packed = prepacked_weights(memory, case, arme_trial(case, dtype).inputs["w"], 0, False)
    sizes, last = (case.seq_lens, case.split, case.w), (dtype.itemsize, 2)
    workspace = memory.workspace(cpu.arme_workspace(*sizes, 1, case.c_out, 0, *last, False))
    expected, y = (memory.output(case.frames, case.h, case.w, case.c_out, dtype=dtype) for _ in range(2))
    supports = (address(inside), address(around)) if supported else (0, 0)
    method = (1, case.c_out, 0.01, 0, *last, 0, 0, False, 0)
    cpu.arme_forward(address(expected), address(x), packed, workspace, *supports, *sizes, *method)
    given = (address(silhouettes), packed, workspace, supports[1])
    maximum, alone = (memory.output(len(case.seq_lens), *y.shape[1:], dtype=dtype) for _ in range(2))
    method = (*sizes, case.c_out, 0.01, *last)
    cpu.silhouettes_forward(address(y), *given, *method, address(maximum), False)
    cpu.silhouettes_forward(0, *given, *method, address(alone), False)
    memory.check()
    assert torch.equal(y, expected)
    assert torch.equal(maximum, maxima(y, case.seq_lens))
    assert torch.equal(alone, maximum)
    left = torch.full_like(y, 7)
    cpu.silhouettes_forward(address(left), *given, *method, 0, True)
    blank = (around == 0).all(2) & supported  # rows that nothing is written to
    assert torch.equal(left[around == 1], y[around == 1])
    assert (left[blank] == 7).all()


@pytest.mark.parametrize(("algorithm", "itemsize"), [(1, 4), (3, 4), (-1, 4), (2, 8), (5, 8)])
def test_unknown_algorithms_are_refused(algorithm: int, itemsize: int) -> None:
    with pytest.raises(ValueError, match=f"algorithm: expected 0 .*, got {algorithm}"):
        cpu.arme_workspace([4], [3], 5, 3, 3, algorithm, itemsize, 1, False)
