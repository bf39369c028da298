"""Supports of feature maps, bool [frames, rows, columns], and their active sites, which the convolutions visit.

An active site is a position inside the support, as in sparse convolution. Its neighbour mask says which of the 27
positions around it belong to the same sequence and region.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast.backends.gpu import countable
from hstl_fast.backends.tables import frames_table, region_of_rows, regions_table, windows_table
from hstl_fast.backends.triton.launch import on_device_of
from hstl_fast.layout import frames_of
from hstl_fast.reference import fta_lengths

# Positions of one program.
BLOCK = 1024


@triton.jit
def _has_neighbour(
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
    """Whether the neighbour at a tap of the 3 x 3 x 3 kernel belongs to the same sequence and region."""
    t = frame + tap // 9 - 1
    h = row + tap // 3 % 3 - 1
    w = col + tap % 3 - 1
    in_time = (t >= first_frame) & (t <= last_frame)
    return in_time & (h >= first_row) & (h < end_row) & (w >= 0) & (w < width)


@triton.jit
def _grow(y, x, ends, regions, region_of_row, positions, height, width, BLOCK: tl.constexpr):
    """Grows a support by one position in time, rows and columns.

    Bytes: one read (27 times, through L1), one written.
    """
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
        exists = inside & _has_neighbour(tap, frame, row, col, first_frame, last_frame, first_row, end_row, width)
        offset = ((tap // 9 - 1) * height + tap // 3 % 3 - 1) * width + tap % 3 - 1
        any_neighbour |= (tl.load(x + at + offset, mask=exists, other=0) != 0).to(tl.int8)
    tl.store(y + at, any_neighbour, mask=inside)


@triton.jit
def _window(y, x, windows, outputs, frame_size, BLOCK: tl.constexpr):
    """Whether any of a window's five frames is inside."""
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
    """Whether any of 2 x 2 positions is inside."""
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
    """The frame, row, column and region's rows of element e of the maps, enumerated region by region."""
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
def _count_sites(counts, support, regions, region_count, positions, frames, height, width, BLOCK: tl.constexpr):
    """How many of each block of positions, enumerated region by region, are inside the support."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame, row, col, _, _ = _decoded(e, regions, region_count, frames, width)
    active = tl.load(support + (frame * height + row) * width + col, mask=e < positions, other=0) != 0
    tl.store(counts + tl.program_id(0), tl.sum(active.to(tl.int32), 0))


@triton.jit(do_not_specialize=["frames"])
def _find_sites(
    sites,  # [positions], out: the active sites, region by region
    neighbours,  # [positions], out: the neighbour mask: bit `tap`: it belongs to the same sequence and region
    region_starts,  # [regions + 1], out: where each region's sites begin, and where the last one's end
    support,  # or anything, if SPARSE is 0
    counted,  # [blocks]: active sites up to the end of each block, if SPARSE
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
    """Lists the active sites with their neighbour masks.

    Bytes: one of the support read, eight written for each active site.
    """
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
    mask = tl.zeros([BLOCK], tl.int32)
    for tap in tl.static_range(27):
        exists = _has_neighbour(tap, frame, row, col, first_frame, last_frame, first_row, first_row + rows, width)
        mask |= exists.to(tl.int32) << tap
    tl.store(sites + rank, position, mask=active > 0)
    tl.store(neighbours + rank, mask, mask=active > 0)
    for region in range(region_count):
        first = tl.load(regions + 2 * region) * frames * width
        tl.store(region_starts + region + tl.zeros_like(e), rank, mask=e == first)
    tl.store(region_starts + region_count + tl.zeros_like(e), rank + active, mask=e == positions - 1)


class ActiveSites(NamedTuple):
    """The active sites of a map, region by region; int32. Elements behind the last site were never written.

    Attributes:
        sites: `[positions]`: the index of a site among the map's positions.
        neighbours: `[positions]`: the neighbour mask; bit 9 dt + 3 dh + dw is set where that neighbour belongs to the
            same sequence and region.
        region_starts: `[m + 1]`: where each region's sites begin, and where the last one's end.
    """

    sites: Tensor
    neighbours: Tensor
    region_starts: Tensor


def active_sites(support: Tensor | None, x: Tensor, split: list[int], seq_lens: list[int]) -> ActiveSites:
    """The positions of `x` [n, c, t, h, w] inside the support; all positions where it is None."""
    n, _, t, h, w = x.shape
    device, positions = x.device, countable(n * t * h * w, "triton")
    ends, regions = frames_table(frames_of(x, seq_lens), device).ends, regions_table(split, device)
    sites, neighbours = (torch.empty(positions, dtype=torch.int32, device=device) for _ in range(2))
    region_starts = torch.empty(len(split) + 1, dtype=torch.int32, device=device)
    found = ActiveSites(sites, neighbours, region_starts)
    blocks = triton.cdiv(positions, BLOCK)
    sizes = (regions, len(split), positions, n * t, h, w)
    with on_device_of(x):
        if support is None:
            _find_sites[(blocks,)](*found, sites, sites, ends, *sizes, SPARSE=0, BLOCK=BLOCK)
        else:
            inside = support.contiguous().view(torch.int8)
            counts = torch.empty(blocks, dtype=torch.int32, device=device)
            _count_sites[(blocks,)](counts, inside, *sizes, BLOCK=BLOCK)
            counted = counts.cumsum(0, dtype=torch.int32)
            _find_sites[(blocks,)](*found, inside, counted, ends, *sizes, SPARSE=1, BLOCK=BLOCK)
    return found


def grow(support: Tensor, split: list[int], seq_lens: list[int]) -> Tensor:
    """The support `[n, t, h, w]` grown as `grow_support` of hstl_fast.reference grows it."""
    x = support.contiguous()
    n, t, h, w = x.shape
    countable(n * t * h * w, "triton")
    y = torch.empty_like(x)
    ends = frames_table(seq_lens or [t] * n, x.device).ends
    regions, region_of_row = regions_table(split, x.device), region_of_rows(split, x.device)
    with on_device_of(x):
        _grow[(triton.cdiv(x.numel(), BLOCK),)](
            y.view(torch.int8), x.view(torch.int8), ends, regions, region_of_row, x.numel(), h, w, BLOCK=BLOCK
        )
    return y


def window(support: Tensor, seq_lens: list[int]) -> Tensor:
    """The support `[n, t', h, w]` of FTA's windows: inside are the positions of any of a window's five frames."""
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
    """The support `[n, t, h // 2, w // 2]` after the 2 x 2 max pool: any of four positions."""
    x = support.contiguous()
    n, t, h, w = x.shape
    y = x.new_empty((n, t, h // 2, w // 2))
    with on_device_of(x):
        _max_pool[(triton.cdiv(y.numel(), BLOCK),)](
            y.view(torch.int8), x.view(torch.int8), y.numel(), h, w, BLOCK=BLOCK
        )
    return y
