"""How the native convolution multiplies: directly, or in the Winograd domain with tiles of 2, 4 or 5 frames."""

from __future__ import annotations

import torch

from hstl_fast.layout import computing_dtype

# The private operators' argument `algorithm`; numbers above these are the frames of a Winograd tile.
AUTO, DIRECT, WINOGRAD = -1, 0, 1
TILES = (2, 4, 5)
# In a forward pass whose gradients are wanted, rounding decides which of two nearly equal maxima takes the gradient.
# Tiles of 5 frames round twice as much, so that gradients of whole networks were up to 60 times as far off as torch's.
TRAINING_TILES = (2, 4)
# With fewer channels, a product in the Winograd domain is too small to pay for the transforms.
FEWEST_CHANNELS = 8


def why_no_winograd(dtype: torch.dtype) -> str | None:
    """Why `arme` of this type cannot be computed in the Winograd domain; None if it can."""
    if computing_dtype(dtype) == torch.float64:
        return "Winograd convolution rounds too much for float64"
    return None


def resolve(
    algorithm: int, dtype: torch.dtype, c_in: int, c_out: int, lens: list[int], tiles: tuple[int, ...] = TILES
) -> int:
    """Choose how one layer is multiplied.

    Args:
        algorithm: AUTO, DIRECT, WINOGRAD or the frames of a tile.
        dtype: The type computed in.
        c_in: Input channels.
        c_out: Output channels.
        lens: Frames of every sequence.
        tiles: Frames of the Winograd tiles to choose from.

    Returns:
        DIRECT or the frames of a Winograd tile, as the native functions take it.
    """
    if algorithm == AUTO:
        small = min(c_in, c_out) < FEWEST_CHANNELS or max(lens) == 1
        algorithm = DIRECT if small or dtype == torch.float64 else WINOGRAD
    return tile_frames(lens, tiles) if algorithm == WINOGRAD else algorithm


def tile_frames(lens: list[int], tiles: tuple[int, ...]) -> int:
    """Frames of a Winograd tile that need the fewest products for sequences of these lengths; fewer frames round less.

    A tile of n frames takes 36 (n + 2) products per pair of channels. Measured with 32 to 256 channels, time follows
    them: tiles of 5 frames are 20 to 25 % faster than tiles of 2 for 10 or 30 frames.
    """
    return min(tiles, key=lambda n: (_tiles(lens, n) * (n + 2), n))


def _tiles(lens: list[int], frames: int) -> int:
    """Tiles in time, as the native code lays them: a sequence that begins inside a tile leaves one frame empty."""
    slots = 0
    for length in lens:
        slots += length + (slots % frames > 0)
    return -(-slots // frames)
