"""The gradient of ARME's weights in CUDA C++, run on the CPU against the reference in float64."""

import mmap
from collections.abc import Iterable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from hstl_fast import reference
from tests.csrc.cuda import build, convolutions
from tests.csrc.cuda.convolutions import CASES, KINDS, Case, Inputs, Kind
from tests.helpers import bounds

# Bytes of shared memory that a block may have, from small GPUs to Hopper, and what a block is made of follows from it.
SHARED = (99 * 1024, 163 * 1024, 227 * 1024)
ALL_CASES = {
    **CASES,
    "64 channels": Case(64, 64, (3,), (2,), 5),
    "48 channels of 64": Case(48, 96, (2, 1), (2,), 5, 30, 0.3),
    "three channels": Case(3, 5, (4,), (3,), 6, 2),
    "more items than splits": Case(8, 8, (2, 1), (6, 5, 1), 9, 1, 0.2),
    "chunks that are not full": Case(16, 40, (6,), (3,), 17),
}

CAPABILITY = 80  # of a GPU where mma.sync multiplies all types

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_case = pytest.mark.parametrize("case", ALL_CASES.values(), ids=ALL_CASES)


def run(
    module: ModuleType,
    case: Case,
    kind: Kind,
    maps: tuple[Tensor, Tensor, Tensor | None],
    starts: Tensor | None = None,
) -> Tensor:
    """The gradient of the weights by the module.

    Args:
        module: the kernels.
        case: sizes; frames are those of the maps.
        kind: the type of the products.
        maps: grad and x, [frames, h, w, c], and the support, [frames, h, w], or None.
        starts: another table than that of the case.
    """
    grad, x, support = maps
    tables = convolutions.Tables(case.split, case.lens)
    if starts is not None:
        tables.starts = starts
    sizes = (list(case.split), len(x), len(case.lens), case.w, case.c_in, case.c_out)
    size = module.arme_workspace(*sizes, kind.number, case.stretch, True, 0)
    memory = torch.full((size + 512,), 255, dtype=torch.uint8)
    gw = torch.full((len(case.split), case.c_out, case.c_in, 3, 3, 3), torch.nan)
    at = convolutions.aligned(memory)
    module.arme_wgrad(
        *(convolutions.address(each) for each in (gw, grad, x, support)),
        *(*tables.addresses(), at, *sizes, kind.number),
        *(convolutions.BYTES if x.dtype == torch.uint8 else kind.number, case.stretch, 0, 0),
    )
    assert bool((memory[at - memory.data_ptr() + size :] == 255).all()), "wrote behind the workspace"
    return gw


def maps_of(given: Inputs) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `run` takes; gradients outside the support are NaN, since nobody may read them."""
    grad, support = given.grad, given.y_support
    if support is not None:
        grad = grad.masked_fill(~support[:, None], torch.nan)
    inside = None if support is None else support[0].contiguous()
    return convolutions.channels_last(grad), convolutions.channels_last(given.x), inside


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


@pytest.fixture
def module(module: ModuleType) -> ModuleType:
    """The module on a GPU without wgmma."""
    module.shim.options(capability=CAPABILITY)
    return module


@each_kind
@each_case
def test_wgrad(ordered: ModuleType, case: Case, kind: Kind) -> None:
    given = convolutions.inputs_of(case, kind)
    assert is_right(run(ordered, case, kind, maps_of(given)), case, given)


@each_kind
@pytest.mark.parametrize("shared_limit", SHARED)
@pytest.mark.parametrize("multiprocessors", [1, 1000])
def test_every_shape_of_block_and_number_of_splits(
    module: ModuleType, kind: Kind, shared_limit: int, multiprocessors: int
) -> None:
    module.shim.options(shared_limit=shared_limit, multiprocessors=multiprocessors)
    for case in (
        Case(72, 40, (2, 3), (3, 2), 6, 2, 0.2),
        Case(64, 16, (3,), (2, 1), 5, 1),
        Case(32, 64, (3,), (2,), 5, 1),
        Case(16, 16, (5,), (3,), 31, 1),
    ):
        given = convolutions.inputs_of(case, kind)
        assert is_right(run(module, case, kind, maps_of(given)), case, given)


@each_kind
def test_any_order_of_threads_gives_the_same_bits(module: ModuleType, kind: Kind) -> None:
    case = CASES["ragged, prime sizes"]
    maps, found = maps_of(convolutions.inputs_of(case, kind)), []
    for seed in (0, 3, 4):
        module.shim.options(seed=seed)
        found.append(run(module, case, kind, maps))
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


@each_kind
@pytest.mark.parametrize("moved", ["grad", "x"])
def test_maps_that_are_not_aligned(module: ModuleType, kind: Kind, moved: str) -> None:
    case = Case(16, 24, (3, 1), (2,), 7, 30, 0.2)
    given = convolutions.inputs_of(case, kind)
    grad, x, support = maps_of(given)

    def unaligned(map_: Tensor) -> Tensor:
        memory = torch.full((map_.numel() + 16,), torch.nan, dtype=map_.dtype)
        first = next(i for i in range(16) if memory[i:].data_ptr() % 16 != 0)
        memory[first : first + map_.numel()] = map_.flatten()
        return memory[first : first + map_.numel()].view(map_.shape)

    maps = (unaligned(grad), x, support) if moved == "grad" else (grad, unaligned(x), support)
    assert is_right(run(module, case, kind, maps), case, given)


@each_kind
def test_frames_behind_the_last_sequence_are_not_read(module: ModuleType, kind: Kind) -> None:
    case = Case(16, 8, (3, 2), (3, 1), 5, 2, 0.2)
    given = convolutions.inputs_of(case, kind)

    def longer(map_: Tensor, value: float) -> Tensor:
        return torch.cat([map_, map_.new_full((3, *map_.shape[1:]), value)])

    grad, x, support = maps_of(given)
    assert support is not None
    maps = (longer(grad, torch.nan), longer(x, torch.nan), longer(support, 1))
    assert is_right(run(module, case, kind, maps), case, given)


@each_kind
def test_a_region_without_sites(module: ModuleType, kind: Kind) -> None:
    case = Case(8, 16, (2, 3, 1), (3,), 5, 2)
    given = convolutions.inputs_of(case, kind)
    support = torch.ones(1, 3, 6, 5, dtype=torch.bool)
    support[:, :, 2:5] = False
    given = given._replace(y_support=support)
    gw = run(module, case, kind, maps_of(given))
    assert is_right(gw, case, given)
    assert not gw[1].any()


@each_kind
def test_bytes_stand_for_their_share_of_255(module: ModuleType, kind: Kind) -> None:
    case = Case(3, 8, (4,), (2,), 9)
    given = convolutions.inputs_of(case, kind)
    silhouettes = torch.randint(0, 256, given.x.shape, dtype=torch.uint8)
    found = run(module, case, kind, maps_of(given._replace(x=silhouettes)))
    share = (silhouettes / 255.0).to(kind.dtype)
    exact = given._replace(x=rounded_to_tf32(share) if kind is KINDS["tf32"] else share)
    assert is_right(found, case, exact)


def rounded_to_tf32(x: Tensor) -> Tensor:
    """Float32 to TF32's bits of mantissa, to the nearest, ties away from zero."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_tf32_rounds_to_the_nearest(module: ModuleType) -> None:
    case = CASES["one frame"]
    given = convolutions.inputs_of(case, KINDS["float32"])
    exact = given._replace(x=rounded_to_tf32(given.x), grad=rounded_to_tf32(given.grad))
    assert is_right(run(module, case, KINDS["tf32"], maps_of(given)), case, exact)


def test_maps_of_more_than_2_to_the_31_elements(module: ModuleType) -> None:
    """All but one frame, the last, belong to no sequence, so that their memory is never touched."""
    kind, c, h, w = KINDS["float16"], 64, 4, 8
    frames = 2**31 // (c * h * w) + 2
    case = Case(c, c, (h,), (1,), w, frames)
    given = convolutions.inputs_of(case, kind)
    maps = []
    for map_ in maps_of(given)[:2]:
        memory = mmap.mmap(-1, frames * h * w * c * 2)
        maps.append(torch.frombuffer(memory, dtype=kind.dtype).view(frames, h, w, c))
        maps[-1][-1] = map_[0]
    starts = torch.tensor([frames - 1, frames], dtype=torch.int32)
    assert is_right(run(module, case, kind, (maps[0], maps[1], None), starts), case, given)


# Faults, each of one line of csrc/cuda.
MUTATIONS = {
    "a wait": ("arme_wgrad_tiles.cuh", "copy_async_wait<kRing - 2>();", "copy_async_wait<kRing - 1>();"),
    "the wait of a tile with one chunk": ("arme_wgrad_tiles.cuh", "copy_async_wait<0>();", "copy_async_wait<1>();"),
    "the barrier between tiles": ("arme_wgrad.cu", "__syncthreads();  // what the tile before needs", "// what"),
    "the sequence's end": ("arme_wgrad.cu", "s.last + 2 - work.time", "s.last + 3 - work.time"),
    "the support": (
        "arme_wgrad_tiles.cuh",
        "site < 0 || grad.support == nullptr",
        "site < 0 || grad.support != nullptr",
    ),
    "the row of a neighbour": ("arme_wgrad.cu", "site / p.w - tile.first_row - 1", "site / p.w - tile.first_row"),
    "the patch in use": (
        "arme_wgrad_tiles.cuh",
        "t.copy_x(now.frame + 1, now.chunk",
        "t.copy_x(now.frame + 2, now.chunk",
    ),
    "a lane's row": ("arme_wgrad_mma.cuh", "lane / 16 * 8 + lane % 8) + lane / 8 % 2", "lane % 16) + lane / 16"),
    "a tap": ("arme_wgrad_mma.cuh", "tap / 3 * row_bytes + tap % 3", "tap % 3 * row_bytes + tap / 3"),
    "a region's first split": ("arme_wgrad_tiles.cuh", "p.per_split + region;", "p.per_split;"),
}


def is_seen(module: ModuleType, cases: Iterable[Case]) -> bool:
    """Whether a module breaks a rule of the emulator, or is wrong, in one of these cases."""
    kind = KINDS["float16"]
    for case in cases:
        given = convolutions.inputs_of(case, kind)
        try:
            right = is_right(run(module, case, kind, maps_of(given)), case, given)
        except RuntimeError:  # the emulator's
            return True
        if not right:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("fault", MUTATIONS.values(), ids=MUTATIONS)
def test_a_fault_is_seen(fault: tuple[str, str, str]) -> None:
    cases = [ALL_CASES["ragged, prime sizes"], ALL_CASES["more items than splits"], Case(16, 40, (6,), (3,), 17)]
    module = build.mutated(*fault)
    module.shim.options(capability=CAPABILITY)
    assert is_seen(module, cases)
