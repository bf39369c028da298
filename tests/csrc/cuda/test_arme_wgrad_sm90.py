"""The gradient of ARME's weights by products of warpgroups, run on the CPU against the reference in float64."""

from types import ModuleType

import pytest

from tests.csrc.cuda import build, convolutions
from tests.csrc.cuda.convolutions import KINDS, Case, Kind
from tests.csrc.cuda.test_arme_wgrad import is_right, is_seen, maps_of, run

CAPABILITY = 90
# Sizes that choose this kernel: more than 32 outputs and more than 16 channels.
CASES = {
    "one frame": Case(32, 64, (3,), (1,), 5),
    "one-row regions, two frames": Case(24, 40, (1, 1, 2), (2,), 7),
    "ragged, prime sizes": Case(19, 41, (7, 3), (4, 1, 3), 11, 2, 0.1),
    "a block's second warpgroup without channels": Case(72, 40, (5,), (3,), 7, 30, 0.2),
    "outputs of half a block": Case(64, 96, (2, 1), (2,), 5, 30, 0.3),
    "one column": Case(24, 40, (9,), (3,), 1),
    "tiles of columns that fill their box": Case(24, 40, (150,), (2,), 1),
    "runs that end with their row": Case(24, 40, (3,), (2,), 16),
    "a tile full of positions and a second one": Case(24, 40, (13,), (3,), 23, 2),
    "several chunks": Case(40, 40, (9, 4), (4, 2), 30, 3, 0.05),
    "two panels": Case(24, 40, (3, 2), (2,), 67, 30, 0.02),
    "no active site": Case(24, 40, (3, 2), (2, 1), 5, 30, 0.0),
    "more items than splits": Case(24, 40, (2, 1), (6, 5, 1), 9, 1, 0.2),
}
KINDS_16 = {name: KINDS[name] for name in ("float16", "bfloat16")}

each_kind = pytest.mark.parametrize("kind", KINDS_16.values(), ids=KINDS_16)


@each_kind
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_wgrad(ordered: ModuleType, case: Case, kind: Kind) -> None:
    given = convolutions.inputs_of(case, kind)
    ordered.shim.report()
    assert is_right(run(ordered, case, kind, maps_of(given)), case, given)
    assert "arme_wgrad_sm90" in ordered.shim.report()


@pytest.mark.parametrize("multiprocessors", [1, 1000])
@each_kind
def test_every_number_of_splits(module: ModuleType, kind: Kind, multiprocessors: int) -> None:
    module.shim.options(capability=CAPABILITY, multiprocessors=multiprocessors)
    for case in (Case(72, 40, (2, 3), (3, 2), 6, 2, 0.2), Case(32, 64, (3,), (2, 1), 5, 1)):
        given = convolutions.inputs_of(case, kind)
        assert is_right(run(module, case, kind, maps_of(given)), case, given)


@each_kind
def test_any_order_of_threads_gives_the_same_bits(module: ModuleType, kind: Kind) -> None:
    case = CASES["ragged, prime sizes"]
    maps, found = maps_of(convolutions.inputs_of(case, kind)), []
    for seed in (0, 3, 4):
        module.shim.options(capability=CAPABILITY, seed=seed)
        found.append(run(module, case, kind, maps))
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


@each_kind
def test_channels_that_are_not_whole_units(ordered: ModuleType, kind: Kind) -> None:
    """Every copy of x and of the gradient then goes element by element."""
    case = Case(35, 67, (3, 1), (2,), 7, 30, 0.2)
    given = convolutions.inputs_of(case, kind)
    assert is_right(run(ordered, case, kind, maps_of(given)), case, given)


@pytest.mark.parametrize(
    ("options", "c_in", "c_out"),
    [
        ({"capability": 80}, 24, 40),
        ({"capability": 120}, 24, 40),
        ({"capability": CAPABILITY}, 16, 40),
        ({"capability": CAPABILITY}, 24, 32),
        ({"capability": CAPABILITY, "shared_limit": 99 * 1024}, 24, 40),
    ],
)
def test_where_mma_sync_is_used(module: ModuleType, options: dict[str, int], c_in: int, c_out: int) -> None:
    case, kind = Case(c_in, c_out, (3,), (2,), 5), KINDS["float16"]
    given = convolutions.inputs_of(case, kind)
    module.shim.options(**options)
    module.shim.report()
    assert is_right(run(module, case, kind, maps_of(given)), case, given)
    assert "arme_wgrad_sm90" not in module.shim.report()


# Faults, each of one place of csrc/cuda/arme_wgrad_sm90.cu.
FAULTS = {
    "no fence between proxies": ("publish() const { fence_async_proxy(); }", "publish() const {}"),
    "no wait for a chunk's products": ("wgmma_wait<0>();", "wgmma_wait<1>();"),
    "no wait before the gradient's registers are loaded": ("if (i > 0) wgmma_wait<1>();", ""),
    "no fence of registers": ("    wgmma_fence();\n", ""),
    "no barrier between tiles": ("__syncthreads();  // what the tile before needs", "// what"),
    "a tap's shift": ("(low + dx)", "(low + 2 - dx)"),
    "the row of a tap": ("matrix_descriptor(patch, 0, pitch", "matrix_descriptor(patch, 0, (pitch + 1)"),
    "k and columns exchanged": (
        "matrix_descriptor(patch, 0, pitch * kUnitBytes)",
        "matrix_descriptor(patch, pitch * 16, 0)",
    ),
    "the second run of a product": ("uint32_t(right - left) << 16", "uint32_t(right - left - 1) << 16"),
    "a run of positions that do not follow one another": ("i == 0 || site != left + 1 ||", "i == 0 ||"),
    "a run across rows": ("|| site % w == 0", ""),
    "positions behind a run": ("load_shared(m.first + run) + at <", "load_shared(m.first + run) + at <="),
    "memory behind a patch that was not written": ("i < kTail * patches", "i < 0 * patches"),
    "the patch of the other warpgroup": ("/ kWarpgroupThreads * kPatchUnits * kUnitBytes;", "* 0;"),
    "outputs exchanged": ("to[number * 32] = odd ? taken : kept", "to[number * 32] = kept"),
    "the lanes of the gradient's matrices": ("(lane / 16 * kRun + lane % 8)", "(lane / 8 % 2 * kRun + lane % 8)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_seen(fault: tuple[str, str]) -> None:
    module = build.mutated("arme_wgrad_sm90.cu", *fault)
    module.shim.options(capability=CAPABILITY)
    assert is_seen(module, [Case(40, 40, (7, 3), (4, 1, 3), 11, 2, 0.1), Case(24, 40, (13,), (2,), 23)])
