"""The emulator: its instructions against the figures of the PTX manual, its numbers against torch's, its errors."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.csrc.cuda.guarded import guarded

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)


def run(
    kernels: ModuleType,
    name: str,
    arrays: Sequence[torch.Tensor],
    numbers: Sequence[int] = (),
    *,
    blocks: int = 1,
    threads: int = 32,
    shared: int = 1024,
) -> None:
    kernels.run(name, blocks, threads, shared, [array.data_ptr() for array in arrays], list(numbers))


# ---- the figures of the PTX manual, as matrices of lanes and of elements

# ldmatrix's, mma's and wgmma's 8 x 8 matrix of 2-byte elements: its lanes, and which of the lane's two elements.
LANES = np.arange(32).reshape(8, 4).repeat(2, axis=1)
HALVES = np.tile([0, 1], (8, 4))


def stacked(registers: Sequence[Sequence[int]], halves: Array, lanes: Array) -> tuple[Array, Array, Array]:
    """Lane, register and element of a matrix of 8 x 8 blocks whose registers are given."""
    rows, columns = np.shape(registers)
    return np.tile(lanes, (rows, columns)), np.kron(registers, np.ones_like(lanes)), np.tile(halves, (rows, columns))


# A: 16 x 16; B: 16 x 8, columns of the figure are rows here; the same of TF32 in blocks of 8 x 4. D: 16 x 8.
A2 = stacked([[0, 2], [1, 3]], HALVES, LANES)
B2 = tuple(part.T for part in stacked([[0, 1]], HALVES, LANES))
FOURS = np.arange(32).reshape(8, 4)
A4 = stacked([[0, 2], [1, 3]], np.zeros((8, 4), int), FOURS)
B4 = tuple(part.T for part in stacked([[0, 1]], np.zeros((8, 4), int), FOURS))


def d_registers(columns: int) -> tuple[Array, Array]:
    """Lane and register of D, 16 x columns."""
    lane, block, half = stacked([[2 * i for i in range(columns // 8)]] * 2, HALVES, LANES)
    lower = np.repeat([[0], [1]], 8, axis=0)
    return lane, 2 * block + 2 * lower + half


def scatter(matrix: Array, place: Sequence[Array], elements: int, registers: int) -> Array:
    """The registers of 32 lanes, of as many elements each, that hold a matrix."""
    fragments = np.zeros((32, registers, elements), matrix.dtype)
    fragments[tuple(place)] = matrix
    return fragments


TYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32}


def bits_of(values: Array, kind: str) -> Array:
    """What the type stores."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(TYPES[kind])
    return tensor.view(torch.int32 if kind == "tf32" else torch.int16).numpy()


def small_integers(*shape: int) -> Array:
    """Of which every product and sum is exact in every type."""
    return RANDOM.integers(-8, 9, shape).astype(np.float32)


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(kernels: ModuleType, transposed: bool) -> None:
    matrices = torch.arange(256, dtype=torch.int16).reshape(4, 8, 8)
    registers = torch.zeros(32, 4, dtype=torch.int32)
    run(kernels, "ldmatrix", [matrices, registers], [transposed])
    got = registers.numpy().view(np.int16).reshape(32, 4, 2)
    lanes, halves = (LANES.T, HALVES.T) if transposed else (LANES, HALVES)
    for matrix in range(4):
        np.testing.assert_array_equal(got[lanes, matrix, halves], matrices[matrix].numpy())


@pytest.mark.parametrize("kind", TYPES)
def test_mma(kernels: ModuleType, kind: str) -> None:
    depth, place_a, place_b = (8, A4, B4) if kind == "tf32" else (16, A2, B2)
    a, b, d = small_integers(16, depth), small_integers(depth, 8), small_integers(16, 8)
    each = depth // 8
    place_d = d_registers(8)
    registers = scatter(d, (*place_d, np.zeros_like(place_d[0])), 1, 4)
    arrays = [scatter(bits_of(a, kind), place_a, each, 4), scatter(bits_of(b, kind), place_b, each, 2), registers]
    tensors = [torch.from_numpy(array) for array in arrays]
    run(kernels, f"mma_{kind}", tensors)
    np.testing.assert_array_equal(registers[..., 0][place_d], a @ b + d)


def test_tf32_drops_bits(kernels: ModuleType) -> None:
    """The hardware reads no more than TF32's bits, and does not round."""
    a = torch.zeros(32, 4)
    a[0, 0] = 1 + 2.0**-10 + 2.0**-11
    b = torch.zeros(32, 2)
    b[0, 0] = 1
    d = torch.zeros(32, 4)
    run(kernels, "mma_tf32", [a, b, d])
    assert d[0, 0] == 1 + 2.0**-10


# ---- wgmma: B's bytes in shared memory

NO_SWIZZLE, SWIZZLE_128, SWIZZLE_64, SWIZZLE_32 = range(4)
CHUNKS = {NO_SWIZZLE: 1, SWIZZLE_128: 8, SWIZZLE_64: 4, SWIZZLE_32: 2}


def swizzled(lines: Array) -> Array:
    """Lines of 1, 2, 4 or 8 chunks of 16 bytes, [.., 8 lines, chunks, 16 bytes], as the swizzle permutes them.

    A pattern of 8 chunks repeats every 128 bytes: chunk j of the 128-byte line i comes to j ^ i, of the shorter lines'
    as many bits as they have.
    """
    chunks = lines.shape[-2]
    result = np.empty_like(lines)
    for line in range(8):
        for chunk in range(chunks):
            result[..., line, chunk ^ (line * chunks // 8 % chunks), :] = lines[..., line, chunk, :]
    return result


class Image(NamedTuple):
    """B as bytes in shared memory, and the descriptor's offsets."""

    data: Array
    begin: int  # offset of the matrix
    leading: int
    stride: int

    def numbers(self, swizzle: int, fault: int = 0) -> list[int]:
        """What the kernel takes beside the arrays."""
        bits = self.begin >> 4 | self.leading >> 4 << 16 | self.stride >> 4 << 32 | swizzle << 62
        return [self.data.size, bits - (bits >> 63 << 64), fault, 1024]


def k_major_image(b: Array, swizzle: int) -> Image:
    """Of B [k, n], rows of k."""
    rows = np.ascontiguousarray(b.T).view(np.uint8).reshape(-1, 8, 2, 16)  # [groups of 8 n, n, halves of k, bytes]
    chunks = CHUNKS[swizzle]
    if chunks == 1:
        leading = 8 * 16 * rows.shape[0] + 32  # all groups' first halves, a gap, the second ones
        image = np.zeros(leading + 8 * 16 * rows.shape[0], np.uint8)
        for half in range(2):
            image[half * leading :][: rows[:, :, half].size] = rows[:, :, half].ravel()
        return Image(image, 0, leading, 128)
    begin = (chunks // 2 - 1) * 2  # the last 32 bytes of each line
    lines = RANDOM.integers(0, 255, (rows.shape[0], 8, chunks, 16), np.uint8)
    lines[:, :, begin : begin + 2] = rows
    return Image(swizzled(lines).ravel(), 16 * begin, 0, 8 * 16 * chunks)


def n_major_image(b: Array, swizzle: int) -> Image:
    """Of B [k, n], rows of n."""
    chunks = CHUNKS[swizzle]
    pieces = b.view(np.uint8).reshape(2, 8, -1, chunks, 16)  # [groups of 8 k, k, groups of n, chunks, bytes]
    groups = pieces.shape[2]
    if chunks == 1:
        image = pieces.transpose(2, 0, 1, 3, 4)  # [n, k's groups, k]
        return Image(image.ravel(), 0, 128, 256)
    atoms = swizzled(pieces.transpose(0, 2, 1, 3, 4))  # [k's groups, groups, k, chunks, bytes]
    size = 8 * 16 * chunks
    return Image(atoms.ravel(), 0, size, size * groups)


@pytest.mark.parametrize("swizzle", CHUNKS, ids=["plain", "128", "64", "32"])
@pytest.mark.parametrize(
    ("kind", "n", "transposed"),
    [
        ("f16", 8, False),
        ("f16", 64, False),
        ("bf16", 96, False),
        ("tf32", 64, False),
        ("f16", 64, True),
        ("bf16", 256, True),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_wgmma(kernels: ModuleType, kind: str, n: int, transposed: bool, swizzle: int, late: bool) -> None:
    kernels.shim.options(late=late)
    place_a, each = (A4, 1) if kind == "tf32" else (A2, 2)
    depth = 8 * each
    a, b, d = small_integers(64, depth), small_integers(depth, n), small_integers(64, n)
    image = (n_major_image if transposed else k_major_image)(bits_of(b, kind), swizzle)
    place_d = d_registers(n)
    quarters = [slice(16 * w, 16 * w + 16) for w in range(4)]
    a_registers = np.stack([scatter(bits_of(a[rows], kind), place_a, each, 4) for rows in quarters])
    place = (*place_d, np.zeros_like(place_d[0]))
    registers = np.stack([scatter(d[rows], place, 1, n // 2) for rows in quarters])
    name = f"wgmma_{kind}_{n}" + "_transposed" * transposed
    arrays = [torch.from_numpy(array) for array in (a_registers, image.data, registers)]
    run(kernels, name, arrays, image.numbers(swizzle), threads=128, shared=1024 + image.data.size)
    for w, rows in enumerate(quarters):
        np.testing.assert_array_equal(registers[w, ..., 0][place_d], (a @ b + d)[rows])


# ---- conversions


def every_kind_of_float() -> torch.Tensor:
    """Random bits, all halves, all bfloat16s, and what lies just beside and between neighbours of both."""
    halves = torch.arange(-(2**15), 2**15).to(torch.int16)
    exact = torch.cat([halves.view(torch.float16).float(), halves.view(torch.bfloat16).float()])
    exact = exact[exact.isfinite()].sort().values
    middle = ((exact[1:].double() + exact[:-1].double()) / 2).float()
    numbers = torch.cat([exact, middle, middle.nextafter(torch.tensor(torch.inf)), exact.nextafter(torch.tensor(0.0))])
    random = torch.randint(-(2**31), 2**31, (1 << 16,), generator=torch.Generator().manual_seed(0)).int()
    return torch.cat(
        [numbers, random.view(torch.float32), torch.tensor([torch.inf, -torch.inf, torch.nan, -torch.nan])]
    )


def same(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Bits, with every NaN alike and the signs of zeros told apart."""
    torch.testing.assert_close(got.isnan(), expected.isnan())
    torch.testing.assert_close(got.nan_to_num(0), expected.nan_to_num(0), rtol=0, atol=0)
    torch.testing.assert_close(got.nan_to_num(0).signbit(), expected.nan_to_num(0).signbit())


def test_conversions(kernels: ModuleType) -> None:
    x = every_kind_of_float()
    half, bfloat16, tf32 = x.to(torch.float16), x.to(torch.bfloat16), x.clone()
    got = [torch.zeros_like(half), torch.zeros_like(bfloat16), torch.zeros_like(tf32)]
    run(kernels, "convert", [x, *got], [x.numel()], blocks=8, threads=256, shared=0)
    same(got[0], half)
    same(got[1], bfloat16)
    # TF32 has 10 bits of mantissa: in double, the nearest multiple of the last one, ties away from zero.
    mantissa, exponent = torch.frexp(x[x.isfinite()].double().abs())
    subnormal = (-125 - exponent).clamp(min=0)
    bits = 11 - subnormal
    rounded = torch.ldexp(torch.floor(torch.ldexp(mantissa, bits) + 0.5), exponent - bits).float()
    same(got[2][x.isfinite()], rounded.copysign(x[x.isfinite()]))
    same(got[2][~x.isfinite()], x[~x.isfinite()])


def test_widening(kernels: ModuleType) -> None:
    got = [torch.zeros(65536), torch.zeros(65536)]
    run(kernels, "widen", got, blocks=256, threads=256, shared=0)
    bits = torch.arange(65536).to(torch.int16)
    same(got[0], bits.view(torch.float16).float())
    same(got[1], bits.view(torch.bfloat16).float())


# ---- warps, order, copies


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_collectives(kernels: ModuleType, seed: int) -> None:
    kernels.shim.options(seed=seed)
    got = torch.zeros(8, 32, dtype=torch.int32)
    run(kernels, "collectives", [got], [0])
    lane = np.arange(32)
    expected = [
        np.full(32, sum(1 << i for i in range(0, 32, 3))),
        np.full(32, 1 + 2),
        np.full(32, 105),
        np.where(lane >= 3, lane - 3, lane),
        np.where(lane % 8 < 5, lane + 3, lane),
        lane ^ 9,
        lane // 16 * 16 + (lane + 1) % 16,
        lane ^ 1,
    ]
    np.testing.assert_array_equal(got.numpy(), np.stack(expected).astype(np.int32))


def order(kernels: ModuleType, seed: int) -> list[int]:
    kernels.shim.options(seed=seed)
    turns, counter = torch.zeros(5 * 64, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    run(kernels, "order", [turns, counter], blocks=5, threads=64, shared=0)
    return turns.tolist()


def test_the_seed_permutes_threads_and_blocks(kernels: ModuleType) -> None:
    assert order(kernels, 0) == list(range(320))
    orders = [order(kernels, seed) for seed in range(1, 6)]
    assert all(sorted(each) == list(range(320)) for each in orders)
    assert len({tuple(each) for each in orders}) == 5
    assert len({tuple(thread // 64 for thread in each) for each in orders}) > 1
    assert orders[0] == order(kernels, 1)


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pipelines(kernels: ModuleType, late: bool, seed: int) -> None:
    kernels.shim.options(late=late, seed=seed)
    x = torch.arange(5 * 128).float()
    sums = torch.full((5, 32), torch.nan)
    run(kernels, "pipeline", [x, sums], [0, 5])
    first = x.view(5, 32, 4)[..., 0]
    torch.testing.assert_close(sums, sum(first.roll(-i, 1) for i in range(4)))
    x, y = torch.arange(7 * 64).float(), torch.full((7 * 64,), torch.nan)
    run(kernels, "bulk", [x, y], [0, 7], threads=64)
    torch.testing.assert_close(y, x + 1)


def test_zero_fill_reads_no_source(kernels: ModuleType) -> None:
    x, y = guarded(torch.arange(1, 41, dtype=torch.int32)), torch.full((128,), -1, dtype=torch.int32)
    run(kernels, "zero_fill", [x, y], [10])
    assert y.tolist() == x.tolist() + [0] * 88


def test_fresh_shared_memory_is_nan(kernels: ModuleType) -> None:
    read = torch.zeros(16)
    run(kernels, "bounds", [read], [0], threads=16, shared=64)
    assert read.isnan().all()
    assert torch.equal(read.view(torch.int32), torch.full((16,), -1, dtype=torch.int32))


def test_report(kernels: ModuleType) -> None:
    kernels.shim.options(conflicts=True)
    kernels.shim.report()
    for stride in (16, 32, 80, 128):
        run(kernels, "rows", [], [stride, 0], shared=4096)
        report = kernels.shim.report()["rows"]
        assert report["launches"] == report["blocks"] == 1
        assert report["instructions"] == {"__syncwarp": 1, "store": 32, "ldmatrix": 1}
        # Of 8 rows together, those whose distance is a multiple of 128 bytes meet in the same banks.
        rounds = 4 * {16: 1, 32: 2, 80: 1, 128: 8}[stride]
        assert report["rounds"] == {"ldmatrix": rounds, "store": rounds}
        assert report["fewest"] == {"ldmatrix": 4, "store": 4}
        assert sum(report["conflicts"].values()) == 2 * (rounds - 4)
    assert kernels.shim.report() == {}
