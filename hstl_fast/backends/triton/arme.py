"""ARME as an implicit matrix product: rows are positions inside the support, columns are output channels, and 27
neighbours times the input channels are summed over. One launch covers all regions.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast.backends.triton.available import precision
from hstl_fast.backends.triton.elementwise import clear_outside
from hstl_fast.backends.triton.launch import descriptor_memory, on_device_of, wide
from hstl_fast.backends.triton.support import Positions, listed
from hstl_fast.backends.triton.tables import frames_table, regions_table
from hstl_fast.backends.triton.tiles import Tile, capability, tile_for
from hstl_fast.layout import empty_map, frames_of


@triton.jit
def _region_of_tile(tile, regions, region_count, parts, row_positions, ROWS: tl.constexpr):
    """The region of a tile, and the tile's place in it, where every region has tiles for all of its positions: each of
    its equal parts has so many in a row, and tiles of its own."""
    region = tile * 0
    local = tile
    for i in range(region_count - 1):
        tiles = parts * tl.cdiv(tl.load(regions + 2 * i + 1) * row_positions, ROWS)
        passes = (region == i) & (local >= tiles)
        local = tl.where(passes, local - tiles, local)
        region = tl.where(passes, i + 1, region)
    return region, local


@triton.jit
def _gathered(x_rows, bits, k0, height, width, C_IN: tl.constexpr, DEPTH: tl.constexpr):
    """[rows, DEPTH]: terms k0.. of neighbours and channels of the input at some positions."""
    k = k0 + tl.arange(0, DEPTH)
    if C_IN % DEPTH == 0:  # one neighbour
        tap = k0 // C_IN
        offset = ((tap // 9 - 1) * height + tap // 3 % 3 - 1) * width + tap % 3 - 1
        return tl.load(
            x_rows + (wide(offset) * C_IN + k - tap * C_IN)[None, :],
            mask=(((bits >> tap) & 1) != 0)[:, None],
            other=0,
        )
    taps = k // C_IN
    offsets = ((taps // 9 - 1) * height + taps // 3 % 3 - 1) * width + taps % 3 - 1
    exists = (((bits[:, None] >> (taps & 31)[None, :]) & 1) != 0) & (taps < 27)[None, :]
    return tl.load(x_rows + (offsets.to(tl.int64) * C_IN + k - taps * C_IN)[None, :], mask=exists, other=0)


@triton.jit
def _as_operand(values, TYPE: tl.constexpr):
    """Values of a map as the product takes them: bytes are silhouettes, 0..255 for 0..1."""
    if values.dtype == tl.uint8:
        return (values.to(tl.float32) / 255).to(TYPE)
    return values.to(TYPE)


@triton.jit(do_not_specialize=["row_positions"])
def _convolve(
    y,  # [positions, c_out], out: written at the positions of the list
    x,  # [positions, c_in]
    weights,  # [m, 27 c_in, c_out]
    at,
    taps,
    begins,  # the list of positions
    regions,
    region_count,
    row_positions,  # frames * width
    height,
    width,
    slope,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    W_TERM: tl.constexpr,  # between two terms of a sum in the memory of weights
    W_COL: tl.constexpr,  # between two output channels
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """y = LeakyReLU(gathered x times weights).

    FLOPs: 54 c_in c_out per position. Bytes through the second-level cache: 27 c_in elements per position and block
    of columns, and the region's weights per tile; from memory, if neighbours meet in the cache: c_in + c_out elements
    per position. Registers: ROWS COLS sums over all threads.
    """
    region, local = _region_of_tile(tl.program_id(0), regions, region_count, 1, row_positions, ROWS)
    first = tl.load(begins + region) + local * ROWS
    end = tl.load(begins + region + 1)
    if first >= end:
        return
    entry = first + tl.arange(0, ROWS)
    listed = entry < end
    position = tl.load(at + entry, mask=listed, other=0).to(tl.int64)
    bits = tl.load(taps + entry, mask=listed, other=0)
    col = tl.program_id(1) * COLS + tl.arange(0, COLS)
    x_rows = x + (position * C_IN)[:, None]
    w_cols = weights + (wide(region) * (27 * C_IN * C_OUT) + col * W_COL)[None, :]
    k = tl.arange(0, DEPTH)
    sums = tl.zeros([ROWS, COLS], tl.float32)
    for k0 in range(0, 27 * C_IN, DEPTH):
        a = _gathered(x_rows, bits, k0, height, width, C_IN, DEPTH)
        b = tl.load(
            w_cols + ((k0 + k) * W_TERM)[:, None],
            mask=((k0 + k) < 27 * C_IN)[:, None] & (col < C_OUT)[None, :],
            other=0,
        )
        sums = tl.dot(_as_operand(a, weights.dtype.element_ty), b, sums, input_precision=PRECISION)
    sums = tl.where(sums > 0, sums, sums * slope)
    tl.store(
        y + (position * C_OUT)[:, None] + col[None, :],
        sums.to(y.dtype.element_ty),
        mask=listed[:, None] & (col < C_OUT)[None, :],
    )


@triton.jit(do_not_specialize=["frames"])
def _convolve_patches(
    y,  # [frames, height, width, c_out], out: written everywhere
    x,  # [frames, height, width, c_in]
    weights,  # [m, 27 c_in, c_out]
    support,  # of y; or anything, if SPARSE is 0
    ends,
    regions,
    region_count,
    frames,
    height,
    width,
    slope,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    W_TERM: tl.constexpr,
    W_COL: tl.constexpr,
    SPARSE: tl.constexpr,
    PRECISION: tl.constexpr,
    PATCH_ROWS: tl.constexpr,
    PATCH_COLS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The same for patches of a frame instead of a list of positions: whoever touches the support is computed whole.

    A patch's neighbours are a box of the region, which one bulk copy fetches; what lies past the region's borders or in
    another sequence comes as zeros. FLOPs and bytes as with the list, and those of positions outside the support.
    """
    across = tl.cdiv(width, PATCH_COLS)
    region, local = _region_of_tile(tl.program_id(0), regions, region_count, frames * across, 1, PATCH_ROWS)
    first_row, rows = tl.load(regions + 2 * region), tl.load(regions + 2 * region + 1)
    down = tl.cdiv(rows, PATCH_ROWS)
    frame = local // (across * down)
    patch_row, patch_col = local // across % down * PATCH_ROWS, local % across * PATCH_COLS
    element = tl.arange(0, PATCH_ROWS * PATCH_COLS)
    row, column = patch_row + element // PATCH_COLS, patch_col + element % PATCH_COLS
    inside = (row < rows) & (column < width)
    position = (wide(frame) * height + first_row + row) * width + column
    col = tl.program_id(1) * COLS + tl.arange(0, COLS)
    active = inside
    if SPARSE:
        active = tl.load(support + position, mask=inside, other=0) != 0
    sums = tl.zeros([PATCH_ROWS * PATCH_COLS, COLS], tl.float32)
    if tl.max(active.to(tl.int32), 0) > 0:
        first_frame, last_frame = tl.load(ends + 2 * frame), tl.load(ends + 2 * frame + 1)
        row_size = wide(width) * C_IN
        box = tl.make_tensor_descriptor(
            x + first_row * row_size,
            shape=[frames, rows, width, C_IN],
            strides=[height * row_size, row_size, C_IN, 1],
            block_shape=[1, PATCH_ROWS, PATCH_COLS, DEPTH],
        )
        w_cols = weights + (wide(region) * (27 * C_IN * C_OUT) + col * W_COL)[None, :]
        chunks: tl.constexpr = (C_IN + DEPTH - 1) // DEPTH
        for step in range(27 * chunks):
            tap = step // chunks
            channel = step % chunks * DEPTH
            t = frame + tap // 9 - 1
            t = tl.where((t >= first_frame) & (t <= last_frame), t, frames)  # past the end: zeros
            a = box.load([t, patch_row + tap // 3 % 3 - 1, patch_col + tap % 3 - 1, channel])
            k = channel + tl.arange(0, DEPTH)
            b = tl.load(
                w_cols + ((tap * C_IN + k) * W_TERM)[:, None],
                mask=(k < C_IN)[:, None] & (col < C_OUT)[None, :],
                other=0,
            )
            sums = tl.dot(a.reshape(PATCH_ROWS * PATCH_COLS, DEPTH), b, sums, input_precision=PRECISION)
        sums = tl.where(active[:, None], tl.where(sums > 0, sums, sums * slope), 0)
    tl.store(
        y + (position * C_OUT)[:, None] + col[None, :],
        sums.to(y.dtype.element_ty),
        mask=inside[:, None] & (col < C_OUT)[None, :],
    )


@triton.jit(do_not_specialize=["pieces"])
def _weigh(
    parts,  # [pieces, m, 27 c_in, c_out] float32, out
    x,  # [positions, c_in]
    grad,  # [positions, c_out]
    at,
    taps,
    begins,
    region_count,
    pieces,
    height,
    width,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One piece of each region's positions: parts = gathered x, transposed, times the gradient.

    Neighbours and input channels are the rows, so that layers of few channels fill a tile with several neighbours.
    FLOPs: 54 c_in c_out per position. Bytes through the second-level cache per position: ROWS elements of x and COLS
    of the gradient for every tile of the weights.
    """
    unit = tl.program_id(0)
    region, piece = unit // pieces, unit % pieces
    begin, end = tl.load(begins + region), tl.load(begins + region + 1)
    steps = tl.cdiv(tl.cdiv(end - begin, pieces), DEPTH)
    first = begin + piece * steps * DEPTH
    k0 = tl.program_id(1) * ROWS
    k = k0 + tl.arange(0, ROWS)
    col = tl.program_id(2) * COLS + tl.arange(0, COLS)
    sums = tl.zeros([ROWS, COLS], tl.float32)
    for step in range(steps):
        entry = first + step * DEPTH + tl.arange(0, DEPTH)
        listed = entry < end
        position = tl.load(at + entry, mask=listed, other=0).to(tl.int64)
        bits = tl.load(taps + entry, mask=listed, other=0)
        a = _gathered(x + (position * C_IN)[:, None], bits, k0, height, width, C_IN, ROWS)
        b = tl.load(
            grad + (position * C_OUT)[:, None] + col[None, :],
            mask=listed[:, None] & (col < C_OUT)[None, :],
            other=0,
        )
        a = _as_operand(a, grad.dtype.element_ty)
        sums = tl.dot(tl.trans(a), b, sums, input_precision=PRECISION)
    part = wide(piece) * region_count + region
    tl.store(
        parts + part * (27 * C_IN * C_OUT) + (k * C_OUT)[:, None] + col[None, :],
        sums,
        mask=(k < 27 * C_IN)[:, None] & (col < C_OUT)[None, :],
    )


def forward(
    x: Tensor, weights: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int], slope: float
) -> Tensor:
    """`x` [n, c_in, t, h, w], uint8 or floating, and `weights` [m, c_out, c_in, 3, 3, 3] of the type to compute in;
    `support`, bool [n, t, h, w], of the output. [n, c_out, t, h, w], channels last."""
    return _convolved(x, _packed(weights), support, split, seq_lens, slope)


def dgrad(grad: Tensor, weights: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]) -> Tensor:
    """The gradient of the input, whose support this is, from that of the convolution, before LeakyReLU."""
    return _convolved(grad, _packed(weights.flip(3, 4, 5).transpose(1, 2)), support, split, seq_lens, 1.0)


def _packed(weights: Tensor) -> Tensor:
    """[m, 3, 3, 3, c_in, c_out] of weights [m, c_out, c_in, 3, 3, 3]. In memory output channels come last; in float32
    the terms of a sum do, because from Hopper on TF32 is multiplied from such memory only."""
    if weights.dtype == torch.float32:
        return weights.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 2, 3, 4, 5, 1)
    return weights.permute(0, 3, 4, 5, 2, 1).contiguous()


def _constants(packed: Tensor, tile: Tile) -> dict[str, int | str]:
    """What both convolutions are compiled for. Strides are `_packed`'s: torch's say nothing where a size is 1."""
    c_in, c_out = packed.shape[4:]
    terms_last = packed.dtype == torch.float32
    return {
        "C_IN": c_in,
        "C_OUT": c_out,
        "W_TERM": 1 if terms_last else c_out,
        "W_COL": 27 * c_in if terms_last else 1,
        "PRECISION": precision(),
        "COLS": tile.cols,
        "DEPTH": tile.depth,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _convolved(
    x: Tensor, packed: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int], slope: float
) -> Tensor:
    n, _, t, h, w = x.shape
    y = empty_map(packed, n, packed.shape[5], t, h, w)
    by_patches = feeds_patches(packed.shape[4], x.dtype, split, w, support is not None, capability(x))
    by_patches &= x.data_ptr() % 16 == 0  # of views into other maps not always
    convolve = convolve_patches if by_patches else convolve_list
    convolve(y, x, packed, support, split, seq_lens, slope)
    return y


def feeds_patches(
    c_in: int, dtype: torch.dtype, split: list[int], width: int, sparse: bool, gpu: tuple[int, int]
) -> bool:
    """Whether bulk copies of patches feed the product; else positions are gathered.

    They cost no address arithmetic, but come with whole patches: not where a support leaves a quarter of the positions
    out, nor where patches cover more than a tenth beyond the map. `gpu`: compute capability; Hopper's is (9, 0).
    """
    rows, cols = patch_of(split, width)
    covered = triton.cdiv(width, cols) * cols
    wide = c_in * dtype.itemsize >= 128 and c_in * dtype.itemsize % 16 == 0
    return gpu >= (9, 0) and wide and not sparse and rows * cols >= 64 and 10 * covered <= 11 * width


def convolve_list(
    y: Tensor,
    x: Tensor,
    packed: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    slope: float,
) -> None:
    """Fills y by :func:`_convolve`."""
    n, _, t, h, w = x.shape
    c_in, c_out = packed.shape[4:]
    positions = listed(support, x, split, seq_lens)
    tile = tile_for("convolve", c_in, c_out, packed)
    tiles = sum(triton.cdiv(rows * n * t * w, tile.rows) for rows in split)
    with on_device_of(x):
        _convolve[(tiles, triton.cdiv(c_out, tile.cols))](
            y,
            x,
            packed,
            *positions,
            regions_table(split, x.device),
            len(split),
            n * t * w,
            h,
            w,
            slope,
            ROWS=tile.rows,
            **_constants(packed, tile),
        )
    if support is not None:
        clear_outside(y, support)


def convolve_patches(
    y: Tensor,
    x: Tensor,
    packed: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    slope: float,
) -> None:
    """Fills y by :func:`_convolve_patches`."""
    n, _, t, h, w = x.shape
    c_in, c_out = packed.shape[4:]
    tile, patch = tile_for("convolve", c_in, c_out, packed), patch_of(split, w)
    tiles = n * t * triton.cdiv(w, patch[1]) * sum(triton.cdiv(rows, patch[0]) for rows in split)
    with on_device_of(x), descriptor_memory(x.device):
        _convolve_patches[(tiles, triton.cdiv(c_out, tile.cols))](
            y,
            x,
            packed,
            y if support is None else support.contiguous().view(torch.int8),
            frames_table(frames_of(x, seq_lens), x.device).ends,
            regions_table(split, x.device),
            len(split),
            n * t,
            h,
            w,
            slope,
            SPARSE=int(support is not None),
            PATCH_ROWS=patch[0],
            PATCH_COLS=patch[1],
            **_constants(packed, tile),
        )


def wgrad(grad: Tensor, x: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]) -> Tensor:
    """float32 [m, c_out, c_in, 3, 3, 3], from the gradient of the convolution, before LeakyReLU; `support` of it."""
    c_in, c_out, (h, w) = x.shape[1], grad.shape[1], x.shape[3:]
    positions = listed(support, x, split, seq_lens)
    tile = tile_for("weigh", c_in, c_out, grad)
    blocks = triton.cdiv(27 * c_in, tile.rows), triton.cdiv(c_out, tile.cols)
    pieces = _pieces(positions, len(split) * blocks[0] * blocks[1], tile)
    parts = torch.empty((pieces, len(split), 27, c_in, c_out), dtype=torch.float32, device=x.device)
    with on_device_of(x):
        _weigh[(len(split) * pieces, *blocks)](
            parts,
            x,
            grad,
            *positions,
            len(split),
            pieces,
            h,
            w,
            C_IN=c_in,
            C_OUT=c_out,
            PRECISION=precision(),
            ROWS=tile.rows,
            COLS=tile.cols,
            DEPTH=tile.depth,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return parts.sum(0).view(len(split), 3, 3, 3, c_in, c_out).permute(0, 5, 4, 1, 2, 3).contiguous()


def patch_of(split: list[int], width: int) -> tuple[int, int]:
    """Rows and columns of a patch: as many rows, up to 8, as fill every region, and 16 or 8 columns, whichever reach
    less beyond the map."""
    rows = next(rows for rows in (8, 4, 2, 1) if all(count % rows == 0 for count in split))
    return rows, 8 if triton.cdiv(width, 8) * 8 < triton.cdiv(width, 16) * 16 else 16


PROGRAMS = 1024
"""That keep a large GPU busy."""
FEWEST_STEPS = 4
"""Steps of a program that are worth a part of the sum of its own."""


def _pieces(positions: Positions, tiles: int, tile: Tile) -> int:
    """Into how many each region's positions are divided, for as many parts of the sum."""
    most: int = triton.cdiv(len(positions.at), FEWEST_STEPS * tile.depth)
    return max(1, min(-(-PROGRAMS // tiles), most))
