"""The native ARME in the Winograd domain, against `hstl_fast.reference` in float64."""

import pytest
import torch

from tests.csrc.cpu.helpers import CASES, Buffers, Case, Results, Trial, address, cpu, error
from tests.csrc.cpu.operators import (
    Support,
    arme_native,
    arme_native_forward,
    arme_native_supported,
    arme_trial,
    prepacked_weights,
    supported_trial,
)

ALGORITHMS = (2, 4, 5)
WINOGRAD_CASES = [
    *CASES,
    Case((9, 4), (12, 5), 44, 32, 32),
    Case((11,), (3, 9), 22, 48, 20),
]
winograd = pytest.mark.parametrize("algorithm", ALGORITHMS)


def assert_close(trial: Trial, native: Results) -> None:
    """Assert that maps err at most 1e-5 of their largest value and the weight gradient at most 1e-4 of its norm.

    An output within that of 0 may have the other sign than in float64; there the gradient that arrives is 0.
    """
    assert error(native["y"], trial.expected["y"]) <= 1e-5
    assert error(native["gx"], trial.expected["gx"]) <= 1e-5
    assert (native["gw"] - trial.expected["gw"]).norm() <= 1e-4 * trial.expected["gw"].norm()


@winograd
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_winograd(case: Case, algorithm: int, isa: str) -> None:
    trial = arme_trial(case, torch.float32)
    assert_close(trial, arme_native(case, trial, algorithm=algorithm))


@winograd
@pytest.mark.parametrize("share", [0.03, 0.5])
@pytest.mark.parametrize("case", WINOGRAD_CASES[-3:], ids=str)
def test_winograd_skips_the_background(case: Case, share: float, algorithm: int, isa: str) -> None:
    trial, support = supported_trial(case, share, torch.float32)
    assert_close(trial, arme_native_supported(case, trial, support, algorithm))


@winograd
def test_winograd_does_not_depend_on_the_number_of_threads(algorithm: int, isa: str) -> None:
    case = WINOGRAD_CASES[-2]
    trial, support = supported_trial(case, 0.05, torch.float32)
    one, *others = (arme_native_supported(case, trial, support, algorithm, threads) for threads in (1, 2, 3))
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


@winograd
@pytest.mark.parametrize("case", WINOGRAD_CASES[-3:], ids=str)
def test_winograd_prepacks_one_region_after_another(case: Case, algorithm: int, isa: str) -> None:
    trial, support = supported_trial(case, 0.05, torch.float32)
    for threads in (1, 3):
        options = (0.01, threads, algorithm, support)
        found, expected = (arme_native(case, trial, *options, by_region) for by_region in (True, False))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@winograd
def test_winograd_of_an_empty_support_is_zero(algorithm: int, isa: str) -> None:
    case = CASES[3]
    nothing = torch.zeros(case.frames, case.h, case.w, dtype=torch.uint8)
    trial = arme_trial(case, torch.float32)
    results = arme_native_supported(case, trial, Support(nothing, nothing), algorithm)
    assert all((tensor == 0).all() for tensor in results.values())


@winograd
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.03, 0.5, None])
@pytest.mark.parametrize("case", WINOGRAD_CASES[-3:], ids=str)
def test_winograd_finds_the_frame_maximum(
    case: Case, share: float | None, threads: int, algorithm: int, isa: str
) -> None:
    """The maximum includes the background, and is the same whether or not the map is written beside it."""
    trial, support = (
        (arme_trial(case, torch.float32), None) if share is None else supported_trial(case, share, torch.float32)
    )
    y = arme_native_forward(case, trial, threads, algorithm, support)
    memory, last = Buffers(), (algorithm, 4, threads)
    again = memory.output(*y.shape, dtype=y.dtype)
    beside, alone = (memory.output(len(case.seq_lens), *y.shape[1:], dtype=y.dtype) for _ in range(2))
    packed = prepacked_weights(memory, case, trial.inputs["w"], algorithm, False)
    for maximum, map_ in ((beside, again), (alone, None)):
        sizes = (case.seq_lens, case.split, case.w, case.c_in, case.c_out)
        workspace = memory.workspace(cpu.arme_workspace(*sizes, *last, True))
        where = (0, 0) if support is None else (address(support.x), address(support.y))
        inputs = (address(trial.inputs["x"]), packed, workspace, *where)
        cpu.arme_forward(address(map_), *inputs, *sizes, 0.01, *last, address(maximum), 0, False, 0)
    memory.check()
    expected = torch.stack([frames.amax(0) for frames in y.split(case.seq_lens)])
    assert torch.equal(again, y)
    assert torch.equal(beside, expected)
    assert torch.equal(alone, expected)


@winograd
def test_winograd_writes_nothing_outside_the_support_where_zeros_are_not_wanted(algorithm: int, isa: str) -> None:
    """What stood there before stays; inside, and in the maximum over frames, everything is the same."""
    case = WINOGRAD_CASES[-1]
    trial, support = supported_trial(case, 0.1, torch.float32)
    expected = arme_native_forward(case, trial, algorithm=algorithm, support=support)
    memory, last, sizes = Buffers(), (algorithm, 4, 2), (case.seq_lens, case.split, case.w, case.c_in, case.c_out)
    packed = prepacked_weights(memory, case, trial.inputs["w"], algorithm, False)
    workspace = memory.workspace(cpu.arme_workspace(*sizes, *last, True))
    y, maximum = (
        torch.full_like(expected, 7),
        memory.output(len(case.seq_lens), *expected.shape[1:], dtype=torch.float32),
    )
    inputs = (address(trial.inputs["x"]), packed, workspace, address(support.x), address(support.y))
    cpu.arme_forward(address(y), *inputs, *sizes, 0.01, *last, address(maximum), 0, True, 0)
    memory.check()
    inside = support.y[..., None] > 0
    assert torch.equal(y, torch.where(inside, expected, 7))
    assert torch.equal(maximum, torch.stack([frames.amax(0) for frames in expected.split(case.seq_lens)]))


@winograd
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.03, 0.3, None])
@pytest.mark.parametrize("case", [Case((7, 3, 12), (6, 10), 14, 20, 48), Case((2, 5), (2, 4), 6, 33, 5)], ids=str)
def test_winograd_finds_the_2x2_maximum(
    case: Case, share: float | None, threads: int, algorithm: int, isa: str
) -> None:
    """The 2x2 maximum is that of the map, whether the map is written beside it or the frame maximum alone.

    The columns of a map with a 2x2 maximum are cut into tiles that begin at even columns.
    """
    trial, support = (
        (arme_trial(case, torch.float32), None) if share is None else supported_trial(case, share, torch.float32)
    )
    memory, last, half = Buffers(), (algorithm, 4, threads), (case.frames, case.h // 2, case.w // 2, case.c_out)
    y = memory.output(*trial.expected["y"].shape, dtype=torch.float32)
    beside, alone = (memory.output(*half, dtype=torch.float32) for _ in range(2))
    maximum = memory.output(len(case.seq_lens), *y.shape[1:], dtype=torch.float32)
    packed = prepacked_weights(memory, case, trial.inputs["w"], algorithm, False)
    sizes = (case.seq_lens, case.split, case.w, case.c_in, case.c_out)
    workspace = memory.workspace(cpu.arme_workspace(*sizes, *last, True))
    where = (0, 0) if support is None else (address(support.x), address(support.y))
    inputs = (address(trial.inputs["x"]), packed, workspace, *where)
    cpu.arme_forward(address(y), *inputs, *sizes, 0.01, *last, 0, address(beside), False, 0)
    cpu.arme_forward(0, *inputs, *sizes, 0.01, *last, address(maximum), address(alone), False, 0)
    memory.check()
    assert error(y, trial.expected["y"]) <= 1e-5
    expected = torch.nn.functional.max_pool2d(y.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.equal(beside, expected)
    assert torch.equal(alone, expected)
    assert torch.equal(maximum, torch.stack([frames.amax(0) for frames in y.split(case.seq_lens)]))


def test_winograd_of_many_channels() -> None:
    """The channels take several panels of outputs and blocks of inputs."""
    case = Case((10,), (8, 5), 22, 136, 72)
    trial = arme_trial(case, torch.float32)
    for algorithm in ALGORITHMS:
        assert_close(trial, arme_native(case, trial, algorithm=algorithm))
