"""Faults put into the kernels are found: by the emulator's rules, or by a wrong result."""

from types import ModuleType
from typing import NamedTuple

import pytest

from tests.csrc.cuda import build, convolutions
from tests.csrc.cuda.convolutions import CASES, KINDS, ORDERS

pytestmark = pytest.mark.slow

PROBES = ("one frame", "ragged, prime sizes", "two column blocks", "long stretches")


class Fault(NamedTuple):
    """A file of csrc/cuda, what stands there, and what the fault makes of it."""

    file: str
    old: str
    new: str


FAULTS = {
    "no wait for the weights": Fault("arme_forward.cu", "    copy_async_wait<kRing - 2>();", "    ;"),
    "no barrier after the wait": Fault(
        "arme_forward.cu", "copy_async_wait<kRing - 2>();\n  __syncthreads();", "copy_async_wait<kRing - 2>();"
    ),
    "no barrier before a patch's memory is used again": Fault(
        "arme_forward.cu",
        "    __syncthreads();  // the patch was read, and its memory is free until the next one is copied\n",
        "",
    ),
    "the next patch too late": Fault("arme_forward.cu", "tap < parts)", "tap < parts - 1)"),
    "the first and the second unit of a product exchanged": Fault(
        "mma.cuh", "unit(int lane) { return lane / 16; }", "unit(int lane) { return 1 - lane / 16; }"
    ),
    "weights of the wrong columns": Fault(
        "mma.cuh", "(lane / 8 % 2) * kTimes * kCols + lane / 16 * 8", "(lane / 16) * kTimes * kCols + lane / 8 % 2 * 8"
    ),
    "a row too many below a region": Fault("maps.cuh", "row < tile.region_end", "row <= tile.region_end"),
    "a column too many": Fault("maps.cuh", "col >= 0 && col < w", "col >= 0 && col <= w"),
    "a frame of the sequence before": Fault("arme.cuh", "max(s.begin - 1, s.first)", "max(s.begin - 1, 0)"),
    "the first stretch's frames again": Fault(
        "tiles.cuh", "(segment - t.segment_starts[low]) * t.stretch", "0 * t.stretch"
    ),
    "sums that are not made zero": Fault("arme_forward.cu", "sums[m][n][2 * half + i] = 0.0f;", ""),
    "taps that are not mirrored": Fault("arme.cuh", "26 - (time * kTaps + tap)", "time * kTaps + tap"),
    "the last of the list left out": Fault(
        "epilogue.cuh", "to.first + row >= to.count", "to.first + row >= to.count - 1"
    ),
    "zeros that are not written": Fault("arme_forward.cu", "p.to.support != nullptr", "false"),
}


def is_right(module: ModuleType) -> bool:
    """Whether forward and dgrad are right in every probe, and break no rule of the emulator."""
    kind = KINDS["float16"]
    for order in ORDERS.values():
        module.shim.options(capability=80, **order)
        for name in PROBES:
            case = CASES[name]
            given = convolutions.inputs_of(case, kind)
            fused = convolutions.fused_with(case, kind, given)
            try:
                y = convolutions.forward(module, case, kind, given)
                gx = convolutions.dgrad(module, case, kind, given, fused)
            except RuntimeError:
                return False
            expected = convolutions.expected_forward(case, given), convolutions.expected_dgrad(case, given, fused)
            terms = (27 * case.c_in + 1, 27 * case.c_out + 2)
            for found, right, count in zip((y, gx), expected, terms, strict=True):
                if not convolutions.is_right(found, right, kind, count):
                    return False
    return True


def test_the_kernels_have_no_fault(module: ModuleType) -> None:
    assert is_right(module)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(fault: Fault) -> None:
    assert not is_right(build.mutated(*fault))
