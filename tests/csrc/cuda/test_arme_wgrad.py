"""The gradient of ARME's weights in CUDA C++, run on the CPU against the reference in float64."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from hstl_fast import reference
from tests.csrc.cuda import convolutions
from tests.csrc.cuda.convolutions import CASES, KINDS, Case, Inputs, Kind
from tests.helpers import bounds

# When copies in the background arrive, and the order of the threads.
ORDERS = {"late": {"late": True, "seed": 0}, "early, permuted": {"late": False, "seed": 1}}
# Bytes of shared memory that a block may have: of GPUs for gaming, and of Hopper.
SHARED = {"99 KB": 99 * 1024, "227 KB": 227 * 1024}

ALL_CASES = {
    **CASES,
    "64 channels": Case(64, 64, (3,), (2,), 5),
    "48 channels of 64": Case(48, 96, (2, 1), (2,), 5, 30, 0.3),
    "three channels": Case(3, 5, (4,), (3,), 6, 2),
    "more items than splits": Case(8, 8, (2, 1), (6, 5, 1), 9, 1, 0.2),
    "chunks that are not full": Case(16, 40, (6,), (3,), 17),
}

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_case = pytest.mark.parametrize("case", ALL_CASES.values(), ids=ALL_CASES)


def wgrad(module: ModuleType, case: Case, kind: Kind, given: Inputs, memory: Tensor | None = None) -> Tensor:
    """The gradient of the weights by the module; gradients of y outside the support are NaN."""
    grad = given.grad if given.y_support is None else given.grad.masked_fill(~given.y_support[:, None], torch.nan)
    grad, x = convolutions.channels_last(grad), convolutions.channels_last(given.x)
    tables = convolutions.Tables(case.split, case.lens)
    gw = torch.full((len(case.split), case.c_out, case.c_in, 3, 3, 3), torch.nan)
    if memory is None:
        memory = convolutions.workspace(module, case, kind, wgrad=True)
    module.arme_wgrad(
        *(convolutions.address(each) for each in (gw, grad, x, given.y_support)),
        *tables.addresses(),
        convolutions.aligned(memory),
        *(list(case.split), case.frames, len(case.lens), case.w, case.c_in, case.c_out),
        *(kind.number, convolutions.BYTES if x.dtype == torch.uint8 else kind.number, case.stretch, 0, 0),
    )
    return gw


def expected(case: Case, given: Inputs) -> Tensor:
    """The reference's gradient in float64."""
    weights = given.weights.double().requires_grad_()
    y = reference.arme(given.x.double(), weights, list(case.split), seq_lens=list(case.lens), negative_slope=None)
    grad = given.grad.double()
    if given.y_support is not None:
        grad = grad * given.y_support[:, None]
    (gw,) = torch.autograd.grad(y, weights, grad)
    return gw


def is_right(found: Tensor, case: Case, given: Inputs) -> bool:
    """Whether every element was written and is within the bound of a float32 sum of exact products."""
    terms = max(case.split) * case.w * case.frames
    bound = bounds.rounding(torch.float32, terms)
    return bool(found.isfinite().all()) and bounds.distance(found, expected(case, given)) <= bound


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def ordered(module: ModuleType, request: pytest.FixtureRequest) -> ModuleType:
    """The module with copies and threads in some order."""
    module.shim.options(**request.param)
    return module


@each_kind
@each_case
def test_wgrad(ordered: ModuleType, case: Case, kind: Kind) -> None:
    given = convolutions.inputs_of(case, kind)
    assert is_right(wgrad(ordered, case, kind, given), case, given)
