"""ARME's convolution in CUDA C++, forward and dgrad, run on the CPU against the reference in float64."""

import mmap
from types import ModuleType

import pytest
import torch

from tests.csrc.cuda import convolutions
from tests.csrc.cuda.convolutions import CASES, KINDS, Case

# Of mma.sync; newer ones that have kernels of their own are tested beside this.
CAPABILITY = 80

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


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
    gx = convolutions.dgrad(ordered, case, kind, given)
    assert convolutions.is_right(gx, convolutions.expected_dgrad(case, given), kind, 27 * case.c_out)


@each_kind
@pytest.mark.parametrize("name", ["ragged, prime sizes", "odd channels", "two panels"])
def test_dgrad_with_what_follows_it(module: ModuleType, name: str, kind: convolutions.Kind) -> None:
    module.shim.options(capability=CAPABILITY)
    case = CASES[name]
    given = convolutions.inputs_of(case, kind)
    fused = convolutions.fused_with(case, kind, given)
    gx = convolutions.dgrad(module, case, kind, given, fused)
    expected = convolutions.expected_dgrad(case, given, fused)
    assert convolutions.is_right(gx, expected, kind, 27 * case.c_out + 2)


@each_kind
def test_any_order_of_threads_gives_the_same_bits(module: ModuleType, kind: convolutions.Kind) -> None:
    case = CASES["ragged, prime sizes"]
    given, found = convolutions.inputs_of(case, kind), []
    for seed in (0, 3):
        module.shim.options(capability=CAPABILITY, seed=seed)
        found.append(convolutions.forward(module, case, kind, given))
    assert found[0].equal(found[1])


@pytest.mark.parametrize("shared_limit", [99 * 1024, 163 * 1024, 227 * 1024])
def test_weights_resident_or_not(module: ModuleType, shared_limit: int) -> None:
    module.shim.options(capability=CAPABILITY, shared_limit=shared_limit)
    for case, kind in ((Case(32, 48, (5,), (3,), 7), KINDS["float16"]), (Case(40, 32, (5,), (3,), 7), KINDS["tf32"])):
        given = convolutions.inputs_of(case, kind)
        y = convolutions.forward(module, case, kind, given)
        assert convolutions.is_right(y, convolutions.expected_forward(case, given), kind, 27 * case.c_in + 1)


def test_tf32_rounds_to_the_nearest(module: ModuleType) -> None:
    module.shim.options(capability=CAPABILITY)
    case, kind = CASES["one frame"], KINDS["tf32"]
    exact = convolutions.inputs_of(case, KINDS["float32"])

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    given = exact._replace(x=rounded(exact.x), weights=rounded(exact.weights))
    y = convolutions.forward(module, case, kind, exact)
    assert convolutions.is_right(y, convolutions.expected_forward(case, given), kind, 27 * case.c_in + 1)


def test_bytes_stand_for_their_share_of_255(module: ModuleType) -> None:
    module.shim.options(capability=CAPABILITY)
    case, kind = Case(3, 8, (4,), (2,), 9), KINDS["float32"]
    given = convolutions.inputs_of(case, kind)
    silhouettes = torch.randint(0, 256, given.x.shape, dtype=torch.uint8)
    y = convolutions.forward(module, case, kind, given._replace(x=silhouettes))
    expected = convolutions.expected_forward(case, given._replace(x=silhouettes / 255.0))
    assert convolutions.is_right(y, expected, kind, 27 * case.c_in + 2)


def test_a_map_of_more_than_2_to_the_31_elements(module: ModuleType) -> None:
    """All but one frame, the last, belong to no sequence, so that their memory is never touched."""
    module.shim.options(capability=CAPABILITY)
    kind, c, h, w = KINDS["float16"], 64, 4, 8
    frames = 2**31 // (c * h * w) + 2
    one = Case(c, c, (h,), (1,), w)
    given = convolutions.inputs_of(one, kind)
    x, y = (mmap.mmap(-1, frames * h * w * c * 2) for _ in range(2))
    maps = [torch.frombuffer(memory, dtype=kind.dtype).view(frames, h, w, c) for memory in (x, y)]
    maps[0][-1] = convolutions.channels_last(given.x)[0]
    starts = torch.tensor([frames - 1, frames], dtype=torch.int32)
    tables = convolutions.Tables((h,), (1,))
    sizes = ([h], frames, 1, w, c, c)
    memory = torch.full((module.arme_workspace(*sizes, kind.number, frames, False, 0) + 256,), 255, dtype=torch.uint8)
    module.arme_forward(
        *(each.data_ptr() for each in (maps[1], maps[0], given.weights)),
        *(0, starts.data_ptr(), 0, tables.regions.data_ptr(), convolutions.aligned(memory)),
        *(*sizes, 0.01, kind.number, kind.number, frames, 0, 0),
    )
    expected = convolutions.expected_forward(one, given)
    assert convolutions.is_right(maps[1][-1:].clone(), expected, kind, 27 * c + 1)
    assert not maps[1][0].any()
