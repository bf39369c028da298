"""Measuring which tile is the fastest for each GEMM of a network on a GPU."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from triton.testing import do_bench

from hstl_fast.backends.triton import arme, tiles
from hstl_fast.backends.triton.tiles import Tile

# The maps of so many clips fill every large GPU.
CLIPS = 16
# The largest difference in 16 bits between a tile's answer and the rule's, relative to the norm of the rule's.
WORST = 2e-2
# A timer returns the seconds that a call takes.
Timer = Callable[[Callable[[], object]], float]


class Gemm(NamedTuple):
    """One GEMM of a layer.

    Attributes:
        kind: "conv" for forward or, with channels swapped, dgrad; "wgrad".
        c_in: input channels.
        c_out: output channels.
        split: rows of each region.
        frames: frames of a clip.
        columns: columns of the map.
    """

    kind: str
    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    columns: int

    @property
    def name(self) -> str:
        """The name in lists; the split makes no difference to the tile."""
        return f"{self.kind} {self.c_in}-{self.c_out}"

    @property
    def flop(self) -> int:
        """The arithmetic for one clip, padding counted."""
        return 54 * self.c_in * self.c_out * self.frames * sum(self.split) * self.columns


class Measured(NamedTuple):
    """The tiles that were measured for one GEMM.

    Attributes:
        key: the key of the tile in a file.
        rule: the tile that the rule gives.
        tried: seconds with each tile.
        left_out: why other tiles have no time.
    """

    key: str
    rule: Tile
    tried: dict[Tile, float]
    left_out: dict[Tile, str]

    @property
    def best(self) -> Tile:
        """The fastest tile."""
        return min(self.tried, key=lambda tile: self.tried[tile])


def gemms(convolutions: Iterable[tuple[int, int, tuple[int, ...], int, int]]) -> list[Gemm]:
    """The GEMMs of layers (c_in, c_out, split, frames, columns), forward and backward.

    Each pair of channels comes once, with the layer of the most arithmetic, and the most arithmetic first.
    """
    found: dict[str, Gemm] = {}
    for gemm in sorted(_all_gemms(convolutions), key=lambda gemm: -gemm.flop):
        found.setdefault(gemm.name, gemm)
    return list(found.values())


def _all_gemms(convolutions: Iterable[tuple[int, int, tuple[int, ...], int, int]]) -> Iterator[Gemm]:
    for c_in, c_out, split, frames, columns in convolutions:
        size = split, frames, columns
        yield Gemm("conv", c_in, c_out, *size)
        yield Gemm("wgrad", c_in, c_out, *size)
        if c_in > 1:  # the silhouettes have no gradient
            yield Gemm("conv", c_out, c_in, *size)


def measure(
    gemm: Gemm,
    device: torch.device,
    dtype: torch.dtype,
    clips: int = CLIPS,
    timer: Timer | None = None,
    others: int | None = None,
) -> Measured:
    """Time a GEMM with the rule's tile and with candidates for a better one.

    A tile that does not fit, or whose answer differs from the rule's, is left out.

    Args:
        gemm: the GEMM.
        device: the GPU.
        dtype: the type of its operands.
        clips: how many clips are computed at once.
        timer: returns the seconds of a call; None for Triton's own benchmark.
        others: how many candidates are timed; None for all.

    Returns:
        The times, and why tiles were left out.
    """
    seconds = timer or _seconds
    call, x = _call(gemm, device, dtype, clips)
    rule = tiles.by_rule(gemm.kind, gemm.c_in, gemm.c_out, dtype, tiles.capability(x))
    with tiles.forced(rule):
        expected = call().double()
    tried: dict[Tile, float] = {}
    left_out: dict[Tile, str] = {}
    for tile in dict.fromkeys([rule, *tiles.candidates(gemm.c_out, dtype)[:others]]):
        with tiles.forced(tile):
            try:
                error = float((call().double() - expected).norm() / expected.norm())
                if error <= WORST:
                    tried[tile] = seconds(call)
                else:
                    left_out[tile] = f"differs by {error:.1e}"
            except Exception as error:  # too much shared memory, or a compiler that gives up
                left_out[tile] = type(error).__name__
    return Measured(tiles.key(gemm.kind, gemm.c_in, gemm.c_out, x), rule, tried, left_out)


def _seconds(call: Callable[[], object]) -> float:
    return float(do_bench(call, return_mode="median")) / 1e3


def _call(gemm: Gemm, device: torch.device, dtype: torch.dtype, clips: int) -> tuple[Callable[[], Tensor], Tensor]:
    """The call to time, and a map that it reads."""
    random = torch.Generator().manual_seed(0)
    split = list(gemm.split)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    def feature_map(c: int) -> Tensor:
        return noise(clips, gemm.frames, sum(split), gemm.columns, c).permute(0, 4, 1, 2, 3)

    x = feature_map(gemm.c_in)
    if gemm.kind == "wgrad":
        gradient = feature_map(gemm.c_out)
        return lambda: arme.wgrad(gradient, x, None, split, []), x
    weights = noise(len(split), gemm.c_out, gemm.c_in, 3, 3, 3) / (27 * gemm.c_in) ** 0.5
    return lambda: arme.forward(x, weights, None, split, [], 0.01), x
