"""Every rule of the emulator: a small kernel that keeps it passes, the same kernel with one fault does not."""

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from tests.csrc.cuda.guarded import guarded

EVERY_OPTION = [{"late": late, "seed": seed} for late in (False, True) for seed in (0, 1, 2, 3, 4)]


class Kernel(NamedTuple):
    """How a kernel is run; its first number is its fault."""

    name: str
    arrays: Callable[[], Sequence[torch.Tensor]]
    numbers: Sequence[int] = (0,)
    fault_at: int = 0  # the fault's place among the numbers
    threads: int = 32
    shared: int = 1024

    def run(self, kernels: ModuleType, fault: int) -> Sequence[torch.Tensor]:
        """The arrays, after the kernel has run."""
        arrays, numbers = self.arrays(), list(self.numbers)
        numbers[self.fault_at] = fault
        kernels.run(self.name, 1, self.threads, self.shared, [array.data_ptr() for array in arrays], numbers)
        return arrays


def floats(*sizes: int) -> Callable[[], Sequence[torch.Tensor]]:
    return lambda: [torch.arange(size).float() for size in sizes]


DESCRIPTOR = 128 >> 4 << 16 | 256 >> 4 << 32
WGMMA = Kernel(
    "wgmma_f16_64", floats(128 * 4, 64 * 8, 128 * 32), (64 * 32, DESCRIPTOR, 0, 1024), 2, threads=128, shared=4096
)
GENERIC = Kernel("wgmma_generic", floats(128 * 8, 128), threads=128)
REUSE = Kernel("wgmma_reuse", floats(), threads=128)
PIPELINE = Kernel("pipeline", floats(5 * 128, 5 * 32), (0, 5))
BULK = Kernel("bulk", floats(7 * 64, 7 * 64), (0, 7), threads=64)
EXCHANGE = Kernel("exchange", floats(128), (0, 0), threads=128)
TICKETS = Kernel("tickets", floats(1), threads=64)
COLLECTIVES = Kernel("collectives", floats(8 * 32))

# A kernel, its fault, and what is said of it.
FAULTS = [
    (WGMMA, 1, "no wgmma_fence came before"),
    (WGMMA, 2, "the accumulators were written after the latest wgmma_fence"),
    (WGMMA, 3, "accumulator 1 of lane 0 was written while a wgmma was in flight"),
    (WGMMA, 5, "A's registers of lane 0 were written while the wgmma at .* was in flight"),
    (WGMMA, 6, "ended before the wgmma at .* was waited for"),
    (WGMMA, 7, "race: .* byte 1024 of shared memory, which (a bulk copy|warp .) "),
    (WGMMA, 8, "its 1 wgmmas differ from the 0 of the warpgroup's first warp"),
    (WGMMA, 9, "ended before the wgmma at .* was waited for"),
    (GENERIC, 1, "reads through the asynchronous proxy, without a fence_async_proxy"),
    (GENERIC, 3, "reads through the asynchronous proxy, without a fence_async_proxy"),
    (GENERIC, 4, "reads through the asynchronous proxy, without a fence_async_proxy"),
    (REUSE, 1, "race: .* no barrier orders the two"),
    (REUSE, 2, "race: .* writes byte .*, which warp . reads at "),
    (PIPELINE, 1, "reads byte .*, which warp 0, lane .* writes at .*; that has not been waited for"),
    (PIPELINE, 2, "reads byte .*, which warp 0, lane .* writes at .*; that has not been waited for"),
    (PIPELINE, 3, "race: .*; (that has not been waited for|no barrier orders the two)"),
    (PIPELINE, 4, "race: .*; (that has not been waited for|no barrier orders the two)"),
    (PIPELINE, 5, "that has not been waited for"),
    (PIPELINE, 6, "reads byte .*, which warp 0, lane .* writes at .*; "),
    (BULK, 1, "cp.async.bulk: 248 bytes are not a multiple of 16"),
    (BULK, 2, "cp.async.bulk: the address 72 in shared memory is not a multiple of 16"),
    (BULK, 3, "cp.async.bulk: the source .* is null or not aligned to 16 bytes"),
    (BULK, 4, "cp.async.bulk: 256 bytes are in flight, of which only 0 were announced"),
    (BULK, 5, "no barrier was initialised at 0 in shared memory"),
    (BULK, 6, "no barrier_init_fence made the barrier visible"),
    (BULK, 7, "mbarrier.init: there is a barrier already"),
    (BULK, 8, "deadlock: .*32 threads wait at .* for the end of an mbarrier's phase"),
    (BULK, 9, "race: .* byte .*, which (a bulk copy writes|warp 0, lane .* reads) at "),
    (BULK, 10, "an arrival too many|race: .* writes byte .*; no barrier orders the two"),
    (BULK, 11, "this writes over the mbarrier at 16 in shared memory"),
    (BULK, 12, "deadlock: .*1 threads wait at .* for the end of an mbarrier's phase"),
    (BULK, 13, "race: .* writes byte .*, which |an arrival too many"),
    (EXCHANGE, 1, "race: .*; no barrier orders the two"),
    (EXCHANGE, 2, "race: .*; no barrier orders the two"),
    (EXCHANGE, 3, "the lanes of the warp diverge: others are in __syncthreads at "),
    (EXCHANGE, 4, "no barrier orders the two"),
    (EXCHANGE, 5, "deadlock: 32 threads ended .*; 96 threads wait at .* for __syncthreads"),
    (TICKETS, 1, "no barrier orders the two"),
    (COLLECTIVES, 1, "the lanes of the warp diverge: vote"),
    (COLLECTIVES, 2, "deadlock: 1 threads ended .*; 31 threads wait at .* for vote"),
    (COLLECTIVES, 3, "vote: the mask 0x0000ffff does not name the lane itself"),
    (COLLECTIVES, 4, "a shuffle reads lane 20, which the mask does not name"),
]


@pytest.fixture(params=EVERY_OPTION, ids=lambda options: f"{'late' if options['late'] else 'early'}-{options['seed']}")
def options(request: pytest.FixtureRequest, kernels: ModuleType) -> Iterator[None]:
    """Early and late copies, in several orders of threads."""
    kernels.shim.options(**request.param)
    return iter(())


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(("kernel", "fault", "message"), FAULTS, ids=[f"{kernel.name}-{n}" for kernel, n, _ in FAULTS])
def test_faults(kernels: ModuleType, kernel: Kernel, fault: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message) as raised:
        kernel.run(kernels, fault)
    assert str(raised.value).startswith(f"{kernel.name}, ")


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize("kernel", dict.fromkeys(kernel for kernel, _, _ in FAULTS), ids=lambda kernel: kernel.name)
def test_right_kernels_pass(kernels: ModuleType, kernel: Kernel) -> None:
    kernel.run(kernels, 0)


@pytest.mark.usefixtures("options")
def test_more_right_kernels(kernels: ModuleType) -> None:
    """The reader may fence after the barrier; neighbours of one warp need no more than __syncwarp."""
    ones = GENERIC._replace(arrays=lambda: [torch.zeros(128 * 8), torch.ones(256, dtype=torch.bfloat16)])
    for fault in (0, 2):
        assert (ones.run(kernels, fault)[0] == 16).all()
    neighbours = EXCHANGE._replace(numbers=(0, 1), arrays=lambda: [torch.zeros(128, dtype=torch.int32)])
    assert neighbours.run(kernels, 4)[0].tolist() == [i ^ 1 for i in range(128)]


@pytest.mark.usefixtures("options")
def test_accumulators_in_flight_read_as_nan(kernels: ModuleType) -> None:
    (*_, registers) = WGMMA.run(kernels, 4)
    assert registers.view(128, 32)[:, 0].isnan().all()


@pytest.mark.parametrize(
    ("kernel", "fault", "late"),
    [(PIPELINE, 1, True), (PIPELINE, 2, True), (PIPELINE, 6, True), (PIPELINE, 5, True), (PIPELINE, 4, False)],
)
def test_late_and_early_copies_show_faults_by_themselves(
    kernels: ModuleType, kernel: Kernel, fault: int, late: bool
) -> None:
    """Without the check for races wrong numbers come out."""
    kernels.shim.options(hazards=False, late=late, seed=1)
    expected = kernel.run(kernels, 0)[1]
    assert not torch.equal(kernel.run(kernels, fault)[1], expected)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (1, "lane 15, .*: a load: 4 bytes at 64 are outside of the block's 64 bytes of shared memory"),
        (2, "a load: the address 2 in shared memory is not a multiple of 4"),
        (3, "lane 0, .*: a store: 4 bytes at -4 are outside"),
        (4, "a store: 2 bytes at 64 are outside"),
        (5, "cp.async: the address 8 in shared memory is not a multiple of 16"),
        (6, "cp.async: 16 bytes at 64 are outside"),
        (7, "cp.async: the source .* is not aligned"),
        (8, "a block wrote beside its shared memory"),
        (9, "segmentation fault at .*: the thread reads or writes outside of its arrays"),
        (10, "a block wrote beside its shared memory"),
    ],
)
def test_bounds(kernels: ModuleType, which: int, message: str) -> None:
    kernel = Kernel("bounds", floats(64, 1), threads=16, shared=64)
    with pytest.raises(RuntimeError, match=message):
        kernel.run(kernels, which)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_guarded_tensors(kernels: ModuleType, dtype: torch.dtype) -> None:
    """A thread that reads just beside one ends the launch with an error; the next launch runs."""
    tensor = guarded(torch.arange(8, dtype=dtype))
    assert tensor.tolist() == list(range(8))
    read = torch.zeros(16, dtype=torch.int32)
    inside, outside = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    for address in (outside, outside, inside - inside % 4096 - 4):
        with pytest.raises(RuntimeError, match="warp 0, lane 0: segmentation fault at "):
            kernels.run("bounds", 1, 16, 64, [read.data_ptr(), address], [11])
        kernels.run("bounds", 1, 16, 64, [read.data_ptr(), inside], [11])
        assert read[0] == tensor.view(torch.int32)[0]


@pytest.mark.parametrize(("stride", "offset", "message"), [(8, 1, "is not a multiple of 16"), (48, 512, "are outside")])
def test_rows_of_ldmatrix(kernels: ModuleType, stride: int, offset: int, message: str) -> None:
    Kernel("rows", floats(), (16, 0)).run(kernels, 16)
    with pytest.raises(RuntimeError, match=rf"ldmatrix: .* {message}"):
        kernels.run("rows", 1, 32, 1024, [], [stride, offset])


def test_fragments_need_whole_warps(kernels: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="ldmatrix needs all 32 lanes of the warp"):
        kernels.run("rows", 1, 31, 1024, [], [16, 0])


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (1 << 14, "has unknown bits"),
        (1 << 52, "has unknown bits"),
        (1 << 49 | 1 << 62, "no base offset"),
        (512 >> 4 << 32, "wgmma: 16 bytes at .* are outside"),
    ],
)
def test_descriptors(kernels: ModuleType, bits: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        WGMMA._replace(numbers=(64 * 32, bits, 0, 1024)).run(kernels, 0)


@pytest.mark.parametrize(
    ("threads", "shared", "message"),
    [
        (32, 232449, "exchange: invalid argument"),
        (1025, 0, "exchange: invalid configuration argument"),
        (0, 0, "exchange: invalid configuration argument"),
    ],
)
def test_launches(kernels: ModuleType, threads: int, shared: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        kernels.run("exchange", 1, threads, shared, [], [])


def test_devices(kernels: ModuleType) -> None:
    kernels.shim.options(shared_limit=1000)
    with pytest.raises(RuntimeError, match="exchange: invalid argument"):
        kernels.run("exchange", 1, 128, 1001, [], [])
    kernels.shim.options(shared_limit=101376, capability=80)
    PIPELINE.run(kernels, 0)
    with pytest.raises(RuntimeError, match="only devices of compute capability 9"):
        BULK.run(kernels, 0)
    with pytest.raises(TypeError, match="no such option: speed"):
        kernels.shim.options(speed=1)


def test_errors_leave_the_emulator_usable(kernels: ModuleType) -> None:
    for kernel, fault, _ in FAULTS:
        with pytest.raises(RuntimeError):
            kernel.run(kernels, fault)
        kernel.run(kernels, 0)
