"""How the native convolution multiplies, and why: directly or in the Winograd domain."""

from contextlib import AbstractContextManager

import torch

from hstl_fast.ops._request import request
from hstl_fast.ops._shared import computing_dtype, constant_when_compiled

ALGORITHMS = ("auto", "winograd", "direct")
REQUEST = request("algorithm", ALGORITHMS)
requested = REQUEST.standing
AUTO, DIRECT, WINOGRAD = -1, 0, 1
"""What the private operators take as `algorithm`; above these, the frames of a Winograd tile (`TILES`)."""
TILES = (2, 4, 5)
TRAINING_TILES = (2, 4)
"""Of the forward pass in training: rounding decides which of two nearly equal maxima takes the gradient, and tiles of 5
frames round twice as much, so that gradients of whole networks were up to 60 times as far off as torch's."""
FEWEST_CHANNELS = 8
"""Of input and output: with fewer, a product in the Winograd domain is too small to pay for the transforms."""


def use_algorithm(name: str) -> AbstractContextManager[None]:
    """Make `name` the algorithm of every native convolution called in this context (this thread, this task).

    `name`: "auto", "winograd" or "direct". An explicit `algorithm=` argument wins over the context, the context over
    the environment variable HSTL_FAST_ALGORITHM. A function compiled by torch.compile keeps the algorithm it was
    compiled with. Raises ValueError for an unknown name; "winograd" raises RuntimeError where it cannot run.
    """
    return REQUEST.use(name)


def why_no_winograd(backend: str, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot compute `arme` of this type in the Winograd domain; None if it can."""
    if backend != "cpu":
        return f"the {backend} backend has no Winograd convolution"
    if computing_dtype(dtype) == torch.float64:
        return "Winograd convolution rounds too much for float64"
    return None


@constant_when_compiled
def choose(algorithm: str | None, backend: str, dtype: torch.dtype) -> int:
    """AUTO, DIRECT or WINOGRAD, by argument, context or environment.

    Raises RuntimeError with the reason if Winograd is asked for by name and cannot run.
    """
    name = REQUEST.of(algorithm)
    if name == "winograd":
        reason = why_no_winograd(backend, dtype)
        if reason is not None:
            raise RuntimeError(f"algorithm 'winograd' cannot run arme: {reason}")
    return {"auto": AUTO, "winograd": WINOGRAD, "direct": DIRECT}[name]


def native_code(
    algorithm: int, dtype: torch.dtype, c_in: int, c_out: int, lens: list[int], tiles: tuple[int, ...] = TILES
) -> int:
    """DIRECT or the frames of a Winograd tile for one layer: what the native functions take.

    `dtype` is the one computed in, `lens` the frames of every sequence, `tiles` those to choose from.
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
