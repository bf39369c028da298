"""ASTP and strip pooling: the frame maximum, then the projection and the generalised mean of every region at once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast.backends.gpu import precision
from hstl_fast.backends.tables import frames_table, region_of_rows, regions_table
from hstl_fast.backends.triton.launch import on_device_of, wide
from hstl_fast.layout import empty_map, frames_of

SMALLEST = tl.constexpr(1e-6)


@triton.jit
def _frame_maximum(
    maximum,  # [n, h, w, c], out
    index,  # [n, h, w, c] int16, out: the first frame of a sequence that attains it
    x,  # [frames, h, w, c]
    support,  # [frames, h, w]: outside nothing is read, and x counts as 0; or anything, if SPARSE is 0
    starts,
    frame_size,  # h w c
    C: tl.constexpr,
    SPARSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The maximum over the frames of one sequence. Bytes: x read where it is inside the support."""
    sequence = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < frame_size
    first, end = tl.load(starts + sequence), tl.load(starts + sequence + 1)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    best_frame = tl.zeros([BLOCK], tl.int32)
    for frame in range(first, end):
        active = inside
        if SPARSE:
            positions = wide(frame) * (frame_size // C)
            active = tl.load(support + positions + element // C, mask=inside, other=0) != 0
        value = tl.load(x + wide(frame) * frame_size + element, mask=active, other=0).to(tl.float32)
        # NaN wins, as in torch; the first frame always does.
        better = ((value > best) | (value != value)) & (best == best) | (frame == first)
        best = tl.where(better, value, best)
        best_frame = tl.where(better, frame - first, best_frame)
    best = tl.where(first < end, best, 0)  # the maximum of a sequence without frames is not read
    place = wide(sequence) * frame_size + element
    tl.store(maximum + place, best.to(maximum.dtype.element_ty), mask=inside)
    tl.store(index + place, best_frame.to(tl.int16), mask=inside)


@triton.jit
def _frame_maximum_backward(
    gx,  # [frames, h, w, c], out
    grad,  # [n, h, w, c]
    index,
    ends,
    sequence_of_frame,
    frame_size,
    BLOCK: tl.constexpr,
):
    """The gradient of one frame: that of the maximum where this frame attains it, else 0.

    Bytes: gx written; the gradient and the index come from the cache for all but one frame of a sequence.
    """
    frame = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < frame_size
    within = frame - tl.load(ends + 2 * frame)
    place = wide(tl.load(sequence_of_frame + frame)) * frame_size + element
    g = tl.load(grad + place, mask=inside, other=0)
    taken = tl.load(index + place, mask=inside, other=-1) == within
    g = tl.where(taken, g, 0).to(gx.dtype.element_ty)
    tl.store(gx + wide(frame) * frame_size + element, g, mask=inside)


@triton.jit
def _frame_maximum_backward_add(gx, grad, index, starts, frame_size, size, BLOCK: tl.constexpr):
    """Adds the gradient to the one frame that attains the maximum. Bytes: three elements per element of one frame."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    sequence = at // frame_size
    frame = tl.load(starts + sequence, mask=inside, other=0) + tl.load(index + at, mask=inside, other=0)
    place = gx + frame.to(tl.int64) * frame_size + at - sequence * frame_size
    tl.store(place, tl.load(place, mask=inside) + tl.load(grad + at, mask=inside).to(gx.dtype.element_ty), mask=inside)


@triton.jit
def _projected(
    maximum_rows,  # pointers [rows, 1]
    inside,  # [rows]
    proj,  # [c_out, c_in] float32
    col,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    PROJECTED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The maxima's projections on output channels `col`, or the maxima themselves: [BLOCK_M, BLOCK_N] float32."""
    if not PROJECTED:
        mask = inside[:, None] & (col < C_OUT)[None, :]
        return tl.load(maximum_rows + col[None, :], mask=mask, other=0).to(tl.float32)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k0 in range(0, C_IN, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        a = tl.load(maximum_rows + k[None, :], mask=inside[:, None] & (k < C_IN)[None, :], other=0).to(tl.float32)
        b = tl.load(
            proj + (col * C_IN)[None, :] + k[:, None], mask=(k < C_IN)[:, None] & (col < C_OUT)[None, :], other=0
        )
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def _pool(
    pooled,  # [n, m, c_out], out
    by_power,  # [n, m, c_out], out: its derivative by the region's exponent
    maximum,  # [n, h, w, c_in]
    proj,
    p,  # [m]
    regions,
    region_count,
    height,
    width,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    PROJECTED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The generalised mean of one region of one sequence: exp(log(mean(exp(p log u))) / p).

    The largest power is found on the way and divided out. FLOPs: 2 c_in + about 60 per output channel and position.
    Bytes: the maxima, for every block of output channels.
    """
    unit = tl.program_id(0)
    sequence, region = unit // region_count, unit % region_count
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    power = tl.load(p + region)
    positions = tl.load(regions + 2 * region + 1) * width
    first = (wide(sequence) * height + tl.load(regions + 2 * region)) * width
    top = tl.full([BLOCK_N], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    levels = tl.zeros([BLOCK_N], tl.float32)
    for begin in range(0, positions, BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        inside = row < positions
        rows = maximum + ((first + row) * C_IN)[:, None]
        u = _projected(rows, inside, proj, col, C_IN, C_OUT, PROJECTED, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K)
        level = tl.log(tl.where(u < SMALLEST, SMALLEST, u))
        exponent = tl.where(inside[:, None], power * level, float("-inf"))
        higher = tl.maximum(top, tl.max(exponent, 0))
        share = tl.exp(exponent - higher[None, :])
        rescale = tl.exp(top - higher)
        total = total * rescale + tl.sum(share, 0)
        levels = levels * rescale + tl.sum(tl.where(inside[:, None], share * level, 0), 0)
        top = higher
    level = (top + tl.log(total / positions)) / power
    y = tl.exp(level)
    place = wide(unit) * C_OUT + col
    tl.store(pooled + place, y, mask=col < C_OUT)
    tl.store(by_power + place, y * (levels / total - level) / power, mask=col < C_OUT)


@triton.jit
def _pool_backward(
    gu,  # [n, h, w, c_out] float32, out: the gradient of the projections
    grad,  # [n, m, c_out]
    pooled,
    maximum,
    proj,
    p,
    regions,
    region_of_row,
    height,
    width,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    PROJECTED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The gradient of one row of one sequence: g (u / pooled)^(p - 1) / positions where u is not clamped, else 0.

    Bytes: the maxima read for every block of output channels, gu written.
    """
    unit = tl.program_id(0)
    sequence, row = unit // height, unit % height
    region = tl.load(region_of_row + row)
    region_count = tl.load(region_of_row + height - 1) + 1
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    power = tl.load(p + region)
    positions = tl.load(regions + 2 * region + 1) * width
    place = (wide(sequence) * region_count + region) * C_OUT + col
    g = tl.load(grad + place, mask=col < C_OUT, other=0) / positions
    level = tl.log(tl.load(pooled + place, mask=col < C_OUT, other=1))
    for begin in range(0, width, BLOCK_M):
        column = begin + tl.arange(0, BLOCK_M)
        inside = column < width
        at = wide(unit) * width + column
        rows = maximum + (at * C_IN)[:, None]
        u = _projected(rows, inside, proj, col, C_IN, C_OUT, PROJECTED, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K)
        slope = tl.exp((power - 1) * (tl.log(tl.where(u < SMALLEST, SMALLEST, u)) - level[None, :]))
        tl.store(
            gu + (at * C_OUT)[:, None] + col[None, :],
            tl.where(u < SMALLEST, 0, g[None, :] * slope),
            mask=inside[:, None] & (col < C_OUT)[None, :],
        )


# Elements of a map that a program of the frame maximum reads of every frame.
MAXIMUM_BLOCK = 1024
# Positions whose projections a program holds at once.
BLOCK_M = 64


def frame_maximum(x: Tensor, support: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    """The maximum over the frames of each sequence, [n, c, 1, h, w], and its frame, int16 [n, h, w, c].

    The support is that of `x` [n, c, t, h, w].
    """
    lens = frames_of(x, seq_lens)
    _, c, _, h, w = x.shape
    maximum = empty_map(x, len(lens), c, 1, h, w)
    index = torch.empty((len(lens), h, w, c), dtype=torch.int16, device=x.device)
    size = h * w * c
    inside = index if support is None else support.contiguous().view(torch.int8)
    with on_device_of(x):
        _frame_maximum[(len(lens), triton.cdiv(size, MAXIMUM_BLOCK))](
            maximum,
            index,
            x,
            inside,
            frames_table(lens, x.device).starts,
            size,
            C=c,
            SPARSE=int(support is not None),
            BLOCK=MAXIMUM_BLOCK,
        )
    return maximum, index


def frame_maximum_backward(
    grad: Tensor, index: Tensor, x_shape: list[int], dtype: torch.dtype, seq_lens: list[int]
) -> Tensor:
    """The gradient of a map, from that of the maxima, [n, c, 1, h, w]."""
    gx = torch.empty(x_shape, dtype=dtype, device=grad.device, memory_format=torch.channels_last_3d)
    lens = frames_of(gx, seq_lens)
    frames, size = frames_table(lens, grad.device), index[0].numel()
    with on_device_of(gx):
        _frame_maximum_backward[(sum(lens), triton.cdiv(size, MAXIMUM_BLOCK))](
            gx, grad, index, frames.ends, frames.sequence, size, BLOCK=MAXIMUM_BLOCK
        )
    return gx


def frame_maximum_backward_add(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    """Add the gradient of the maxima to that of their map, in place."""
    starts = frames_table(frames_of(gx, seq_lens), gx.device).starts
    with on_device_of(gx):
        _frame_maximum_backward_add[(triton.cdiv(index.numel(), MAXIMUM_BLOCK),)](
            gx, grad, index, starts, index[0].numel(), index.numel(), BLOCK=MAXIMUM_BLOCK
        )


def forward(maximum: Tensor, proj: Tensor | None, p: Tensor, split: list[int]) -> tuple[Tensor, Tensor]:
    """The regions' generalised means of `maximum` [n, h, w, c_in], and their derivatives by the exponents.

    Both are float32 [n, m, c_out]; proj [c_out, c_in] and p [m] are float32.
    """
    n, h, w, c_in = maximum.shape
    c_out = c_in if proj is None else proj.shape[0]
    pooled, by_power = (
        torch.empty((n, len(split), c_out), dtype=torch.float32, device=maximum.device) for _ in range(2)
    )
    block_n, constants = _constants(maximum, c_out, proj)
    with on_device_of(maximum):
        _pool[(n * len(split), triton.cdiv(c_out, block_n))](
            pooled,
            by_power,
            maximum,
            p if proj is None else proj,
            p,
            regions_table(split, maximum.device),
            len(split),
            h,
            w,
            **constants,
        )
    return pooled, by_power


def backward(grad: Tensor, pooled: Tensor, maximum: Tensor, proj: Tensor | None, p: Tensor, split: list[int]) -> Tensor:
    """The gradient of the projections, float32 [n, h, w, c_out], from that of what `forward` returned."""
    n, h, w, _ = maximum.shape
    c_out = grad.shape[2]
    gu = torch.empty((n, h, w, c_out), dtype=torch.float32, device=maximum.device)
    block_n, constants = _constants(maximum, c_out, proj)
    device = maximum.device
    with on_device_of(maximum):
        _pool_backward[(n * h, triton.cdiv(c_out, block_n))](
            gu,
            grad,
            pooled,
            maximum,
            p if proj is None else proj,
            p,
            regions_table(split, device),
            region_of_rows(split, device),
            h,
            w,
            **constants,
        )
    return gu


def _constants(maximum: Tensor, c_out: int, proj: Tensor | None) -> tuple[int, dict[str, int | str]]:
    """The output channels of a program, and all constants that the kernels are compiled for."""
    block_n = min(max(triton.next_power_of_2(c_out), 16), 64)
    constants: dict[str, int | str] = {
        "C_IN": maximum.shape[3],
        "C_OUT": c_out,
        "PROJECTED": int(proj is not None),
        "PRECISION": precision(maximum.device),
    }
    return block_n, {**constants, "BLOCK_M": BLOCK_M, "BLOCK_N": block_n, "BLOCK_K": 32, "num_warps": 8}
