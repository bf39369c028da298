"""The kernels of ARME: implicit GEMMs, one launch for all regions.

The rows (M) are the active sites, the columns (N) are the output channels, and the sum (K) runs over the 27 neighbours
times the input channels. wgrad sums over the sites instead, and its rows are neighbours times input channels.
"""

import triton
import triton.language as tl

from hstl_fast.backends.triton.launch import wide


@triton.jit
def _region_of_tile(tile, regions, region_count, parts, row_positions, BLOCK: tl.constexpr):
    """The region of a tile, and the tile's number in it.

    A region has tiles for all of its positions. Each of its equal parts, with so many positions in a row of the map,
    has tiles of its own.
    """
    region = tile * 0
    local = tile
    for i in range(region_count - 1):
        tiles = parts * tl.cdiv(tl.load(regions + 2 * i + 1) * row_positions, BLOCK)
        passes = (region == i) & (local >= tiles)
        local = tl.where(passes, local - tiles, local)
        region = tl.where(passes, i + 1, region)
    return region, local


@triton.jit
def _gathered(x_rows, neighbours, k0, height, width, C_IN: tl.constexpr, BLOCK: tl.constexpr):
    """Terms k0.. of the neighbours and channels of the input at some sites: [sites, BLOCK].

    A neighbour of another sequence or region counts as zeros.
    """
    k = k0 + tl.arange(0, BLOCK)
    if C_IN % BLOCK == 0:  # one neighbour
        tap = k0 // C_IN
        offset = ((tap // 9 - 1) * height + tap // 3 % 3 - 1) * width + tap % 3 - 1
        return tl.load(
            x_rows + (wide(offset) * C_IN + k - tap * C_IN)[None, :],
            mask=(((neighbours >> tap) & 1) != 0)[:, None],
            other=0,
        )
    taps = k // C_IN
    offsets = ((taps // 9 - 1) * height + taps // 3 % 3 - 1) * width + taps % 3 - 1
    exists = (((neighbours[:, None] >> (taps & 31)[None, :]) & 1) != 0) & (taps < 27)[None, :]
    return tl.load(x_rows + (offsets.to(tl.int64) * C_IN + k - taps * C_IN)[None, :], mask=exists, other=0)


@triton.jit
def _as_operand(values, TYPE: tl.constexpr):
    """Values of a map as operands of the GEMM: bytes are silhouettes, 0..255 for 0..1."""
    if values.dtype == tl.uint8:
        return (values.to(tl.float32) / 255).to(TYPE)
    return values.to(TYPE)


@triton.jit(do_not_specialize=["row_positions"])
def conv(
    y,  # [positions, c_out], out: written at the active sites
    x,  # [positions, c_in]
    weights,  # [m, 27 c_in, c_out]
    sites,
    neighbours,
    region_starts,
    regions,
    region_count,
    row_positions,  # frames * width
    height,
    width,
    slope,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    STRIDE_K: tl.constexpr,  # of weights: between two terms of a sum
    STRIDE_N: tl.constexpr,  # between two output channels
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y = LeakyReLU(gathered x times weights).

    FLOPs: 54 c_in c_out per site. Bytes through the second-level cache: 27 c_in elements per site and block of columns,
    and the region's weights per tile; from memory, if neighbours meet in the cache: c_in + c_out elements per site.
    Registers: BLOCK_M BLOCK_N sums over all threads.
    """
    region, local = _region_of_tile(tl.program_id(0), regions, region_count, 1, row_positions, BLOCK_M)
    first = tl.load(region_starts + region) + local * BLOCK_M
    end = tl.load(region_starts + region + 1)
    if first >= end:
        return
    entry = first + tl.arange(0, BLOCK_M)
    in_region = entry < end
    position = tl.load(sites + entry, mask=in_region, other=0).to(tl.int64)
    neighbour_mask = tl.load(neighbours + entry, mask=in_region, other=0)
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x_rows = x + (position * C_IN)[:, None]
    w_cols = weights + (wide(region) * (27 * C_IN * C_OUT) + col * STRIDE_N)[None, :]
    k = tl.arange(0, BLOCK_K)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k0 in range(0, 27 * C_IN, BLOCK_K):
        a = _gathered(x_rows, neighbour_mask, k0, height, width, C_IN, BLOCK_K)
        b = tl.load(
            w_cols + ((k0 + k) * STRIDE_K)[:, None],
            mask=((k0 + k) < 27 * C_IN)[:, None] & (col < C_OUT)[None, :],
            other=0,
        )
        sums = tl.dot(_as_operand(a, weights.dtype.element_ty), b, sums, input_precision=PRECISION)
    sums = tl.where(sums > 0, sums, sums * slope)
    tl.store(
        y + (position * C_OUT)[:, None] + col[None, :],
        sums.to(y.dtype.element_ty),
        mask=in_region[:, None] & (col < C_OUT)[None, :],
    )


@triton.jit(do_not_specialize=["frames"])
def conv_patches(
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
    STRIDE_K: tl.constexpr,
    STRIDE_N: tl.constexpr,
    SPARSE: tl.constexpr,
    PRECISION: tl.constexpr,
    PATCH_H: tl.constexpr,
    PATCH_W: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The same for patches of a frame instead of active sites: a patch that touches the support is computed whole.

    A patch's neighbours are a box of the region, which one bulk copy fetches; positions past the region's borders or in
    another sequence come as zeros. FLOPs and bytes are those of `conv`, and of positions outside the support.
    """
    across = tl.cdiv(width, PATCH_W)
    region, local = _region_of_tile(tl.program_id(0), regions, region_count, frames * across, 1, PATCH_H)
    first_row, rows = tl.load(regions + 2 * region), tl.load(regions + 2 * region + 1)
    down = tl.cdiv(rows, PATCH_H)
    frame = local // (across * down)
    patch_row, patch_col = local // across % down * PATCH_H, local % across * PATCH_W
    element = tl.arange(0, PATCH_H * PATCH_W)
    row, column = patch_row + element // PATCH_W, patch_col + element % PATCH_W
    inside = (row < rows) & (column < width)
    position = (wide(frame) * height + first_row + row) * width + column
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    active = inside
    if SPARSE:
        active = tl.load(support + position, mask=inside, other=0) != 0
    sums = tl.zeros([PATCH_H * PATCH_W, BLOCK_N], tl.float32)
    if tl.max(active.to(tl.int32), 0) > 0:
        first_frame, last_frame = tl.load(ends + 2 * frame), tl.load(ends + 2 * frame + 1)
        row_size = wide(width) * C_IN
        box = tl.make_tensor_descriptor(
            x + first_row * row_size,
            shape=[frames, rows, width, C_IN],
            strides=[height * row_size, row_size, C_IN, 1],
            block_shape=[1, PATCH_H, PATCH_W, BLOCK_K],
        )
        w_cols = weights + (wide(region) * (27 * C_IN * C_OUT) + col * STRIDE_N)[None, :]
        chunks: tl.constexpr = (C_IN + BLOCK_K - 1) // BLOCK_K
        for step in range(27 * chunks):
            tap = step // chunks
            channel = step % chunks * BLOCK_K
            t = frame + tap // 9 - 1
            t = tl.where((t >= first_frame) & (t <= last_frame), t, frames)  # past the end: zeros
            a = box.load([t, patch_row + tap // 3 % 3 - 1, patch_col + tap % 3 - 1, channel])
            k = channel + tl.arange(0, BLOCK_K)
            b = tl.load(
                w_cols + ((tap * C_IN + k) * STRIDE_K)[:, None],
                mask=(k < C_IN)[:, None] & (col < C_OUT)[None, :],
                other=0,
            )
            sums = tl.dot(a.reshape(PATCH_H * PATCH_W, BLOCK_K), b, sums, input_precision=PRECISION)
        sums = tl.where(active[:, None], tl.where(sums > 0, sums, sums * slope), 0)
    tl.store(
        y + (position * C_OUT)[:, None] + col[None, :],
        sums.to(y.dtype.element_ty),
        mask=inside[:, None] & (col < C_OUT)[None, :],
    )


@triton.jit(do_not_specialize=["chunk_count"])
def wgrad(
    partial_sums,  # [chunks, m, 27 c_in, c_out] float32, out
    x,  # [positions, c_in]
    grad,  # [positions, c_out]
    sites,
    neighbours,
    region_starts,
    region_count,
    chunk_count,
    height,
    width,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One chunk of each region's sites: the sum of gathered x, transposed, times the gradient.

    Neighbours and input channels are the rows, so that layers of few channels fill a tile with several neighbours.
    FLOPs: 54 c_in c_out per site. Bytes through the second-level cache per site: BLOCK_M elements of x and BLOCK_N of
    the gradient for every tile of the weights.
    """
    unit = tl.program_id(0)
    region, chunk = unit // chunk_count, unit % chunk_count
    begin, end = tl.load(region_starts + region), tl.load(region_starts + region + 1)
    steps = tl.cdiv(tl.cdiv(end - begin, chunk_count), BLOCK_K)
    first = begin + chunk * steps * BLOCK_K
    k0 = tl.program_id(1) * BLOCK_M
    k = k0 + tl.arange(0, BLOCK_M)
    col = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(steps):
        entry = first + step * BLOCK_K + tl.arange(0, BLOCK_K)
        in_region = entry < end
        position = tl.load(sites + entry, mask=in_region, other=0).to(tl.int64)
        neighbour_mask = tl.load(neighbours + entry, mask=in_region, other=0)
        a = _gathered(x + (position * C_IN)[:, None], neighbour_mask, k0, height, width, C_IN, BLOCK_M)
        b = tl.load(
            grad + (position * C_OUT)[:, None] + col[None, :],
            mask=in_region[:, None] & (col < C_OUT)[None, :],
            other=0,
        )
        a = _as_operand(a, grad.dtype.element_ty)
        sums = tl.dot(tl.trans(a), b, sums, input_precision=PRECISION)
    slot = wide(chunk) * region_count + region
    tl.store(
        partial_sums + slot * (27 * C_IN * C_OUT) + (k * C_OUT)[:, None] + col[None, :],
        sums,
        mask=(k < 27 * C_IN)[:, None] & (col < C_OUT)[None, :],
    )
