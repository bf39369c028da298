"""ARME's convolution by products of warpgroups, forward and dgrad, run on the CPU against the reference in float64."""

from types import ModuleType
from typing import NamedTuple

import pytest

from tests.csrc.cuda import build, convolutions
from tests.csrc.cuda.convolutions import CASES, Case

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


class Fault(NamedTuple):
    """A file of csrc/cuda, what stands there, and what the fault makes of it."""

    file: str
    old: str
    new: str


RING, WARPGROUP, KERNEL = "arme_ring.cuh", "arme_warpgroup.cuh", "arme_forward_sm90.cu"
FAULTS = {
    "no wait for the weights": Fault(
        WARPGROUP, "if (step == 0) wait_phase(memory.weights_full + place.ring.slot, place.ring.parity);", ""
    ),
    "weights copied over those in use": Fault(
        RING, "wait_phase(memory.weights_empty + r.slot.slot, r.slot.parity);", ""
    ),
    "weights released a stage too early": Fault(
        WARPGROUP,
        "release_stage(memory, before, place.resident);\n      int next",
        "release_stage(memory, place.ring.slot, place.resident);\n      int next",
    ),
    "no wait for a patch": Fault(KERNEL, "wait_phase(memory.patch_full + buffer, patch / 2 % 2);", ""),
    "a patch copied over one in use": Fault(
        KERNEL, "if (patch > 0) wait_phase(memory.patch_empty + (buffer ^ 1), (patch - 1) / 2 % 2);", ""
    ),
    "no wait for a patch's copies": Fault(KERNEL, "copy_async_wait<0>();", ""),
    "no fence before the products": Fault(WARPGROUP, "    wgmma_fence();\n", ""),
    "fragments loaded over those in use": Fault(WARPGROUP, "wgmma_wait<1>();", "wgmma_wait<2>();"),
    "sums read while products run": Fault(WARPGROUP, "  wgmma_wait<0>();\n", ""),
    "columns and k of the weights exchanged": Fault(
        WARPGROUP, "2 * step * kUnitRow, kUnitRow, 8 * kUnitBytes)", "2 * step * kUnitRow, 8 * kUnitBytes, kUnitRow)"
    ),
    "the parts of another frame": Fault(WARPGROUP, "(frame + 2 - begin) % kTimes", "(frame + 1 - begin) % kTimes"),
    "outputs that are not the segment's": Fault(WARPGROUP, "output >= begin && output < end", "output < end"),
    "rows of another warpgroup": Fault(WARPGROUP, "* 4 + warp % 4) * 16 + row", "* 4 + warp % 3) * 16 + row"),
    "a warpgroup's second row tile left out": Fault(WARPGROUP, "* kGroupRows < count;", "* kGroupRows + 64 < count;"),
    "the times in another order": Fault(
        "arme.cuh", "int time = kTimes - 1 - next(kTimes);", "int time = next(kTimes);"
    ),
    "sums that do not move": Fault(KERNEL, "i + kPart < kSums ? sums[m][i + kPart] : 0.0f", "sums[m][i]"),
    "the last output left out": Fault(
        KERNEL, "frame <= load_shared(&work->segment.end)", "frame < load_shared(&work->segment.end)"
    ),
}
PROBES = ("ragged, prime sizes", "a ring of weights, one frame each", "five row tiles", "long stretches")


def breaks_no_rule_and_is_right(module: ModuleType) -> bool:
    """Whether forward and dgrad are right in every probe, and break no rule of the emulator."""
    kind = KINDS["float16"]
    for order in convolutions.ORDERS.values():
        module.shim.options(capability=CAPABILITY, **order)
        for case in (ALL_CASES[name] for name in PROBES):
            given = convolutions.inputs_of(case, kind)
            try:
                y, gx = convolutions.forward(module, case, kind, given), convolutions.dgrad(module, case, kind, given)
            except RuntimeError:
                return False
            right_y, right_gx = convolutions.expected_forward(case, given), convolutions.expected_dgrad(case, given)
            if not convolutions.is_right(y, right_y, kind, 27 * case.c_in + 1):
                return False
            if not convolutions.is_right(gx, right_gx, kind, 27 * case.c_out):
                return False
    return True


@pytest.mark.slow
def test_the_kernel_has_no_fault(module: ModuleType) -> None:
    assert breaks_no_rule_and_is_right(module)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(fault: Fault) -> None:
    assert not breaks_no_rule_and_is_right(build.mutated(*fault))
