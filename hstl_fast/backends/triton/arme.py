"""ARME: choice of kernel and tile, prepacked weights, and the launches of forward, dgrad and wgrad."""

import torch
import triton
from torch import Tensor

from hstl_fast.backends.gpu import precision
from hstl_fast.backends.tables import frames_table, regions_table
from hstl_fast.backends.triton import arme_kernels
from hstl_fast.backends.triton.elementwise import clear_outside
from hstl_fast.backends.triton.launch import descriptor_memory, on_device_of
from hstl_fast.backends.triton.support import ActiveSites, active_sites
from hstl_fast.backends.triton.tiles import Tile, capability, tile_for
from hstl_fast.layout import empty_map, frames_of


def forward(
    x: Tensor, weights: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int], slope: float
) -> Tensor:
    """The convolution and LeakyReLU: [n, c_out, t, h, w], channels last.

    Args:
        x: [n, c_in, t, h, w], uint8 or floating.
        weights: [m, c_out, c_in, 3, 3, 3], of the type to compute in.
        support: the output's, bool [n, t, h, w], or None.
        split: rows of each region.
        seq_lens: frames of each packed sequence, or [].
        slope: LeakyReLU's slope for negative values.
    """
    return _conv_map(x, _prepacked(weights), support, split, seq_lens, slope)


def dgrad(grad: Tensor, weights: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]) -> Tensor:
    """The gradient of the input, whose support this is, from that of the convolution, before LeakyReLU."""
    return _conv_map(grad, _prepacked(weights.flip(3, 4, 5).transpose(1, 2)), support, split, seq_lens, 1.0)


def _prepacked(weights: Tensor) -> Tensor:
    """Weights [m, c_out, c_in, 3, 3, 3] as [m, 3, 3, 3, c_in, c_out].

    In memory output channels come last; in float32 the terms of a sum do, because from Hopper on TF32 is multiplied
    from such memory only.
    """
    if weights.dtype == torch.float32:
        return weights.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 2, 3, 4, 5, 1)
    return weights.permute(0, 3, 4, 5, 2, 1).contiguous()


def _constants(prepacked: Tensor, tile: Tile) -> dict[str, int | str]:
    """The constants that both convolutions are compiled for.

    Strides are those that `_prepacked` makes, as torch's say nothing where a size is 1.
    """
    c_in, c_out = prepacked.shape[4:]
    terms_last = prepacked.dtype == torch.float32
    return {
        "C_IN": c_in,
        "C_OUT": c_out,
        "STRIDE_K": 1 if terms_last else c_out,
        "STRIDE_N": 27 * c_in if terms_last else 1,
        "PRECISION": precision(prepacked.device),
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


def _conv_map(
    x: Tensor, prepacked: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int], slope: float
) -> Tensor:
    n, _, t, h, w = x.shape
    y = empty_map(prepacked, n, prepacked.shape[5], t, h, w)
    by_patches = feeds_patches(prepacked.shape[4], x.dtype, split, w, support is not None, capability(x))
    by_patches &= x.data_ptr() % 16 == 0  # views into other maps need not be aligned
    conv = conv_patches if by_patches else conv_sites
    conv(y, x, prepacked, support, split, seq_lens, slope)
    return y


def feeds_patches(
    c_in: int, dtype: torch.dtype, split: list[int], width: int, sparse: bool, gpu: tuple[int, int]
) -> bool:
    """Whether bulk copies of patches feed the GEMM; else active sites are gathered.

    Bulk copies cost no address arithmetic, but come with whole patches: not where a support leaves a quarter of the
    positions out, nor where patches cover more than a tenth beyond the map. `gpu` is the compute capability; Hopper's
    is (9, 0).
    """
    rows, cols = patch_of(split, width)
    covered = triton.cdiv(width, cols) * cols
    wide = c_in * dtype.itemsize >= 128 and c_in * dtype.itemsize % 16 == 0
    return gpu >= (9, 0) and wide and not sparse and rows * cols >= 64 and 10 * covered <= 11 * width


def conv_sites(
    y: Tensor,
    x: Tensor,
    prepacked: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    slope: float,
) -> None:
    """Fill y by :func:`arme_kernels.conv`."""
    n, _, t, h, w = x.shape
    c_in, c_out = prepacked.shape[4:]
    found = active_sites(support, x, split, seq_lens)
    tile = tile_for("conv", c_in, c_out, prepacked)
    tiles = sum(triton.cdiv(rows * n * t * w, tile.block_m) for rows in split)
    with on_device_of(x):
        arme_kernels.conv[(tiles, triton.cdiv(c_out, tile.block_n))](
            y,
            x,
            prepacked,
            *found,
            regions_table(split, x.device),
            len(split),
            n * t * w,
            h,
            w,
            slope,
            BLOCK_M=tile.block_m,
            **_constants(prepacked, tile),
        )
    if support is not None:
        clear_outside(y, support)


def conv_patches(
    y: Tensor,
    x: Tensor,
    prepacked: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    slope: float,
) -> None:
    """Fill y by :func:`arme_kernels.conv_patches`."""
    n, _, t, h, w = x.shape
    c_in, c_out = prepacked.shape[4:]
    tile, patch = tile_for("conv", c_in, c_out, prepacked), patch_of(split, w)
    tiles = n * t * triton.cdiv(w, patch[1]) * sum(triton.cdiv(rows, patch[0]) for rows in split)
    with on_device_of(x), descriptor_memory(x.device):
        arme_kernels.conv_patches[(tiles, triton.cdiv(c_out, tile.block_n))](
            y,
            x,
            prepacked,
            y if support is None else support.contiguous().view(torch.int8),
            frames_table(frames_of(x, seq_lens), x.device).ends,
            regions_table(split, x.device),
            len(split),
            n * t,
            h,
            w,
            slope,
            SPARSE=int(support is not None),
            PATCH_H=patch[0],
            PATCH_W=patch[1],
            **_constants(prepacked, tile),
        )


def wgrad(grad: Tensor, x: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]) -> Tensor:
    """The gradient of the weights, float32 [m, c_out, c_in, 3, 3, 3].

    `grad` is the gradient of the convolution, before LeakyReLU, and `support` is that of the output.
    """
    c_in, c_out, (h, w) = x.shape[1], grad.shape[1], x.shape[3:]
    found = active_sites(support, x, split, seq_lens)
    tile = tile_for("wgrad", c_in, c_out, grad)
    blocks = triton.cdiv(27 * c_in, tile.block_m), triton.cdiv(c_out, tile.block_n)
    chunks = _chunk_count(found, len(split) * blocks[0] * blocks[1], tile)
    partial_sums = torch.empty((chunks, len(split), 27, c_in, c_out), dtype=torch.float32, device=x.device)
    with on_device_of(x):
        arme_kernels.wgrad[(len(split) * chunks, *blocks)](
            partial_sums,
            x,
            grad,
            *found,
            len(split),
            chunks,
            h,
            w,
            C_IN=c_in,
            C_OUT=c_out,
            PRECISION=precision(x.device),
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )
    return partial_sums.sum(0).view(len(split), 3, 3, 3, c_in, c_out).permute(0, 5, 4, 1, 2, 3).contiguous()


def patch_of(split: list[int], width: int) -> tuple[int, int]:
    """The rows and columns of a patch.

    Rows are as many, up to 8, as fill every region; columns are 16 or 8, whichever reach less beyond the map.
    """
    rows = next(rows for rows in (8, 4, 2, 1) if all(count % rows == 0 for count in split))
    return rows, 8 if triton.cdiv(width, 8) * 8 < triton.cdiv(width, 16) * 16 else 16


# So many programs keep a large GPU busy.
PROGRAMS = 1024
# A program with so many steps is worth a partial sum of its own.
FEWEST_STEPS = 4


def _chunk_count(found: ActiveSites, tiles: int, tile: Tile) -> int:
    """The number of chunks that each region's sites are divided into, each with a partial sum."""
    most: int = triton.cdiv(len(found.sites), FEWEST_STEPS * tile.block_k)
    return max(1, min(-(-PROGRAMS // tiles), most))
