"""Supports of feature maps, bool [frames, rows, columns], and the list of the positions inside one."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast.backends.triton.launch import on_device_of
from hstl_fast.backends.triton.tables import frames_table, region_of_rows, regions_table, windows_table
from hstl_fast.layout import frames_of
from hstl_fast.reference import fta_lengths

BLOCK = 1024
"""Positions of one program."""
MOST_POSITIONS = 2**31 - BLOCK
"""Of a map: they are counted in 32 bits, past the last by less than a block. Elements are counted in 64."""


@triton.jit
def _tap(
    tap: tl.constexpr,  # 0..26: 9 times the frame's, 3 times the row's and once the column's
    frame,
    row,
    col,
    first_frame,
    last_frame,
    first_row,
    end_row,
    width,
):
    """Whether a neighbour belongs to the same sequence and region."""
    t = frame + tap // 9 - 1
    h = row + tap // 3 % 3 - 1
    w = col + tap % 3 - 1
    in_time = (t >= first_frame) & (t <= last_frame)
    return in_time & (h >= first_row) & (h < end_row) & (w >= 0) & (w < width)


@triton.jit
def _grow(y, x, ends, regions, region_of_row, positions, height, width, BLOCK: tl.constexpr):
    """One position more in time, rows and columns. Bytes: one read (27 times, through L1), one written."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < positions
    frame, row, col = at // (height * width), at // width % height, at % width
    region = tl.load(region_of_row + row)
    first_row = tl.load(regions + 2 * region)
    end_row = first_row + tl.load(regions + 2 * region + 1)
    first_frame = tl.load(ends + 2 * frame, mask=inside, other=0)
    last_frame = tl.load(ends + 2 * frame + 1, mask=inside, other=0)
    any_neighbour = tl.zeros([BLOCK], tl.int8)
    for tap in tl.static_range(27):
        exists = inside & _tap(tap, frame, row, col, first_frame, last_frame, first_row, end_row, width)
        offset = ((tap // 9 - 1) * height + tap // 3 % 3 - 1) * width + tap % 3 - 1
        any_neighbour |= (tl.load(x + at + offset, mask=exists, other=0) != 0).to(tl.int8)
    tl.store(y + at, any_neighbour, mask=inside)


@triton.jit
def _window(y, x, windows, outputs, frame_size, BLOCK: tl.constexpr):
    """Any of a window's five frames."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < outputs
    window, position = at // frame_size, at % frame_size
    frame = tl.load(windows + 3 * window, mask=inside, other=0)
    first = tl.load(windows + 3 * window + 1, mask=inside, other=0)
    last = tl.load(windows + 3 * window + 2, mask=inside, other=0)
    any_frame = tl.zeros([BLOCK], tl.int8)
    for i in tl.static_range(-1, 4):
        exists = inside & (frame + i >= first) & (frame + i <= last)
        any_frame |= (tl.load(x + (frame + i) * frame_size + position, mask=exists, other=0) != 0).to(tl.int8)
    tl.store(y + at, any_frame, mask=inside)


@triton.jit
def _max_pool(y, x, outputs, height, width, BLOCK: tl.constexpr):
    """Any of 2 x 2 positions."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < outputs
    rows, cols = height // 2, width // 2
    upper = (at // (rows * cols) * height + at // cols % rows * 2) * width + at % cols * 2
    any_of_four = tl.zeros([BLOCK], tl.int8)
    for i in tl.static_range(4):
        any_of_four |= (tl.load(x + upper + i // 2 * width + i % 2, mask=inside, other=0) != 0).to(tl.int8)
    tl.store(y + at, any_of_four, mask=inside)


@triton.jit
def _decoded(e, regions, region_count, frames, width):
    """Frame, row, column and region's rows of element e of the maps, enumerated region by region."""
    first_row = tl.zeros_like(e)
    rows = tl.zeros_like(e) + tl.load(regions + 1)
    for region in range(1, region_count):
        first = tl.load(regions + 2 * region)
        later = e >= first * frames * width
        first_row = tl.where(later, first, first_row)
        rows = tl.where(later, tl.load(regions + 2 * region + 1), rows)
    local = e - first_row * frames * width
    frame = local // (rows * width)
    rest = local - frame * rows * width
    return frame, first_row + rest // width, rest % width, first_row, rows


@triton.jit(do_not_specialize=["frames"])
def _count(counts, support, regions, region_count, positions, frames, height, width, BLOCK: tl.constexpr):
    """How many of each block of positions, enumerated region by region, are inside the support."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame, row, col, _, _ = _decoded(e, regions, region_count, frames, width)
    active = tl.load(support + (frame * height + row) * width + col, mask=e < positions, other=0) != 0
    tl.store(counts + tl.program_id(0), tl.sum(active.to(tl.int32), 0))


@triton.jit(do_not_specialize=["frames"])
def _list(
    at,  # [positions], out: the positions inside, region by region
    taps,  # [positions], out: bit `tap`: the neighbour belongs to the same sequence and region
    begins,  # [regions + 1], out: where each region's positions begin in the list, and the end
    support,  # or anything, if SPARSE is 0
    counted,  # [blocks]: of positions inside up to the end of each block, if SPARSE
    ends,
    regions,
    region_count,
    positions,
    frames,
    height,
    width,
    SPARSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Bytes: one of the support read, eight written for each position inside."""
    block = tl.program_id(0)
    e = block * BLOCK + tl.arange(0, BLOCK)
    inside = e < positions
    frame, row, col, first_row, rows = _decoded(e, regions, region_count, frames, width)
    position = (frame * height + row) * width + col
    before = block * BLOCK
    active = inside.to(tl.int32)
    if SPARSE:
        before = tl.load(counted + block - 1, mask=block > 0, other=0)
        active = (tl.load(support + position, mask=inside, other=0) != 0).to(tl.int32)
    rank = before + tl.cumsum(active, 0) - active
    first_frame = tl.load(ends + 2 * frame, mask=inside, other=0)
    last_frame = tl.load(ends + 2 * frame + 1, mask=inside, other=0)
    bits = tl.zeros([BLOCK], tl.int32)
    for tap in tl.static_range(27):
        exists = _tap(tap, frame, row, col, first_frame, last_frame, first_row, first_row + rows, width)
        bits |= exists.to(tl.int32) << tap
    tl.store(at + rank, position, mask=active > 0)
    tl.store(taps + rank, bits, mask=active > 0)
    for region in range(region_count):
        first = tl.load(regions + 2 * region) * frames * width
        tl.store(begins + region + tl.zeros_like(e), rank, mask=e == first)
    tl.store(begins + region_count + tl.zeros_like(e), rank + active, mask=e == positions - 1)


class Positions(NamedTuple):
    """Of a map, region by region; int32. What is past the end was never written."""

    at: Tensor
    """[positions]: a frame's, row's and column's place in the map, counted in positions."""
    taps: Tensor
    """[positions]: bit 9 dt + 3 dh + dw is set where that neighbour belongs to the same sequence and region."""
    begins: Tensor
    """[m + 1]: where each region begins in the list, and its end."""


def listed(support: Tensor | None, x: Tensor, split: list[int], seq_lens: list[int]) -> Positions:
    """The positions of `x` [n, c, t, h, w] inside the support, or all of them."""
    n, _, t, h, w = x.shape
    device, positions = x.device, _countable(n * t * h * w)
    ends, regions = frames_table(frames_of(x, seq_lens), device).ends, regions_table(split, device)
    at, taps = (torch.empty(positions, dtype=torch.int32, device=device) for _ in range(2))
    begins = torch.empty(len(split) + 1, dtype=torch.int32, device=device)
    blocks = triton.cdiv(positions, BLOCK)
    sizes = (regions, len(split), positions, n * t, h, w)
    with on_device_of(x):
        if support is None:
            _list[(blocks,)](at, taps, begins, at, at, ends, *sizes, SPARSE=0, BLOCK=BLOCK)
        else:
            inside = support.contiguous().view(torch.int8)
            counts = torch.empty(blocks, dtype=torch.int32, device=device)
            _count[(blocks,)](counts, inside, *sizes, BLOCK=BLOCK)
            counted = counts.cumsum(0, dtype=torch.int32)
            _list[(blocks,)](at, taps, begins, inside, counted, ends, *sizes, SPARSE=1, BLOCK=BLOCK)
    return Positions(at, taps, begins)


def _countable(positions: int) -> int:
    """`positions`, if the kernels can count them."""
    if positions > MOST_POSITIONS:
        raise ValueError(
            f"x must have at most {MOST_POSITIONS} positions (frames times rows times columns) in the triton backend, "
            f"got {positions}; take fewer sequences at once"
        )
    return positions


def grow(support: Tensor, split: list[int], seq_lens: list[int]) -> Tensor:
    """`grow_support` of hstl_fast.reference, bool [n, t, h, w]."""
    x = support.contiguous()
    n, t, h, w = x.shape
    _countable(n * t * h * w)
    y = torch.empty_like(x)
    ends = frames_table(seq_lens or [t] * n, x.device).ends
    regions, region_of_row = regions_table(split, x.device), region_of_rows(split, x.device)
    with on_device_of(x):
        _grow[(triton.cdiv(x.numel(), BLOCK),)](
            y.view(torch.int8), x.view(torch.int8), ends, regions, region_of_row, x.numel(), h, w, BLOCK=BLOCK
        )
    return y


def window(support: Tensor, seq_lens: list[int]) -> Tensor:
    """Any of the five frames of each of FTA's windows, bool [n, t', h, w]."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, sum(fta_lengths(seq_lens)) if seq_lens else t // 3, h, w))
    ends = windows_table(seq_lens or [t] * n, x.device).ends
    with on_device_of(x):
        _window[(triton.cdiv(y.numel(), BLOCK),)](
            y.view(torch.int8), x.view(torch.int8), ends, y.numel(), h * w, BLOCK=BLOCK
        )
    return y


def max_pool(support: Tensor) -> Tensor:
    """Any of 2 x 2 positions, bool [n, t, h // 2, w // 2]."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, t, h // 2, w // 2))
    with on_device_of(x):
        _max_pool[(triton.cdiv(y.numel(), BLOCK),)](
            y.view(torch.int8), x.view(torch.int8), y.numel(), h, w, BLOCK=BLOCK
        )
    return y
