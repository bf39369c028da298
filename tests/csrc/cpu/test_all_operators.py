"""The rules that every native operator keeps: threads change no bit of a result, and NaN is not lost."""

import math

import pytest
import torch

from tests.csrc.cpu.helpers import CASES, Buffers, Case, address, cpu
from tests.csrc.cpu.operators import (
    arme_native,
    arme_trial,
    astp_native,
    astp_trial,
    fta_native,
    fta_trial,
    prepacked_weights,
)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], Case((9, 4), (12, 5), 22, 32, 32)], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(case: Case, isa: str) -> None:
    runs = [
        [
            arme_native(case, arme_trial(case, torch.float32), threads=threads),
            astp_native(case, astp_trial(case, True, torch.float32), threads),
            fta_native(case, fta_trial(case, torch.float32), threads),
        ]
        for threads in (1, 2, 3, 2)
    ]
    for run in runs[1:]:
        for expected, got in zip(runs[0], run, strict=True):
            for name, tensor in expected.items():
                assert torch.equal(tensor, got[name]), name


def test_nan_reaches_the_output(isa: str) -> None:
    case = Case((4,), (3,), 5, 3, 3)
    trial = arme_trial(case, torch.float64)
    x = trial.inputs["x"].clone()
    x[2, 1, 2, 1] = math.nan
    maximum, index = torch.empty(1, 3, 5, 3, dtype=x.dtype), torch.empty(1, 3, 5, 3, dtype=torch.int16)
    cpu.frame_maximum(address(maximum), address(index), address(x), [4], 3, 5, 3, 8, 1, 0)
    assert maximum[0, 1, 2, 1].isnan()
    assert index[0, 1, 2, 1] == 2
    assert maximum.isnan().sum() == 1
    memory = Buffers()
    w, y = trial.inputs["w"], torch.empty(4, 3, 5, 3, dtype=x.dtype)
    workspace = memory.workspace(cpu.arme_workspace([4], [3], 5, 3, 3, 0, 8, 1, False))
    packed = prepacked_weights(memory, case, w, 0, False)
    cpu.arme_forward(address(y), address(x), packed, workspace, 0, 0, [4], [3], 5, 3, 3, 0.01, 0, 8, 1, 0, 0, False, 0)
    assert torch.equal(y.isnan(), trial.forward(x, w).isnan())
