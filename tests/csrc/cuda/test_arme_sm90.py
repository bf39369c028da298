"""ARME's convolution by products of warpgroups, forward and dgrad, run on the CPU against the reference in float64."""

from types import ModuleType

import pytest

from tests.csrc.cuda import convolutions
from tests.csrc.cuda.convolutions import CASES, Case

# When copies in the background arrive, and the order of the threads.
ORDERS = {"late": {"late": True, "seed": 0}, "early, permuted": {"late": False, "seed": 1}}
CAPABILITY = 90
KINDS = {name: kind for name, kind in convolutions.KINDS.items() if name != "float32"}
# Sizes that matter here alone: the parts of a ring that is used again, stretches of every kind, tiles in which some
# warpgroups have nothing to do.
ALL_CASES = {
    **CASES,
    "a ring of weights, one frame each": Case(72, 40, (4,), (1, 1), 9, 1),
    "a ring of weights, stacked": Case(104, 24, (2,), (3,), 5),
    "a stretch inside a sequence": Case(40, 33, (3,), (7,), 9, 2, 0.1),
    "one frame of a sequence": Case(8, 40, (3,), (5,), 9, 1),
    "five row tiles": Case(16, 40, (19,), (3,), 16),
}

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_case = pytest.mark.parametrize("case", ALL_CASES.values(), ids=ALL_CASES)


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def ordered(module: ModuleType, request: pytest.FixtureRequest) -> ModuleType:
    """The module with copies and threads in some order, on a GPU of compute capability 9.0."""
    module.shim.options(capability=CAPABILITY, **request.param)
    return module


@each_kind
@each_case
def test_forward(ordered: ModuleType, case: Case, kind: convolutions.Kind) -> None:
    given = convolutions.inputs_of(case, kind)
    y = convolutions.forward(ordered, case, kind, given)
    assert convolutions.is_right(y, convolutions.expected_forward(case, given), kind, 27 * case.c_in + 1)


@each_kind
@each_case
def test_dgrad(ordered: ModuleType, case: Case, kind: convolutions.Kind) -> None:
    given = convolutions.inputs_of(case, kind)
    fused = convolutions.fused_with(case, kind, given)
    gx = convolutions.dgrad(ordered, case, kind, given, fused)
    expected = convolutions.expected_dgrad(case, given, fused)
    assert convolutions.is_right(gx, expected, kind, 27 * case.c_out + 2)


@pytest.mark.parametrize("slots", [3, 4, 5, 8])
def test_a_ring_of_few_slots(ordered: ModuleType, slots: int) -> None:
    case, kind = Case(40, 40, (5,), (3,), 7), KINDS["bfloat16"]
    ordered.shim.options(shared_limit=77 * 1024 + slots * 12 * 1024)
    given = convolutions.inputs_of(case, kind)
    y = convolutions.forward(ordered, case, kind, given)
    assert convolutions.is_right(y, convolutions.expected_forward(case, given), kind, 27 * case.c_in + 1)


@each_kind
def test_any_order_of_threads_gives_the_same_bits(module: ModuleType, kind: convolutions.Kind) -> None:
    case = CASES["ragged, prime sizes"]
    given, found = convolutions.inputs_of(case, kind), []
    for seed in (0, 3, 4):
        module.shim.options(capability=CAPABILITY, seed=seed)
        found.append(convolutions.forward(module, case, kind, given))
    assert all(each.equal(found[0]) for each in found)
