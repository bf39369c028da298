"""Measuring which tile is fastest for each product of a network, here."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from triton.testing import do_bench

from hstl_fast.backends.triton import arme, tiles
from hstl_fast.backends.triton.tiles import Tile

CLIPS = 16
"""With whose maps every large GPU is full."""
WORST = 2e-2
"""Of an answer in 16 bits, relative to the norm of the rule's."""
Timer = Callable[[Callable[[], object]], float]
"""Seconds of a call."""


class Product(NamedTuple):
    """One matrix product of a layer: "convolve", forward or, with channels swapped, of the data's gradient; "weigh"."""

    kind: str
    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    columns: int

    @property
    def name(self) -> str:
        """As it is listed: the split makes no difference to the tile."""
        return f"{self.kind} {self.c_in}-{self.c_out}"

    @property
    def flop(self) -> int:
        """Of one clip, padding counted."""
        return 54 * self.c_in * self.c_out * self.frames * sum(self.split) * self.columns


class Measured(NamedTuple):
    """What was found of one product. tried: seconds of each tile. left_out: why others have none."""

    key: str
    rule: Tile
    tried: dict[Tile, float]
    left_out: dict[Tile, str]

    @property
    def best(self) -> Tile:
        """The fastest."""
        return min(self.tried, key=lambda tile: self.tried[tile])


def products(convolutions: Iterable[tuple[int, int, tuple[int, ...], int, int]]) -> list[Product]:
    """Of layers (c_in, c_out, split, frames, columns), forward and backward, each pair of channels once, the most
    arithmetic first."""
    found: dict[str, Product] = {}
    for product in sorted(_all_products(convolutions), key=lambda product: -product.flop):
        found.setdefault(product.name, product)
    return list(found.values())


def _all_products(convolutions: Iterable[tuple[int, int, tuple[int, ...], int, int]]) -> Iterator[Product]:
    for c_in, c_out, split, frames, columns in convolutions:
        size = split, frames, columns
        yield Product("convolve", c_in, c_out, *size)
        yield Product("weigh", c_in, c_out, *size)
        if c_in > 1:  # the silhouettes have no gradient
            yield Product("convolve", c_out, c_in, *size)


def measure(
    product: Product,
    device: torch.device,
    dtype: torch.dtype,
    clips: int = CLIPS,
    timer: Timer | None = None,
    others: int | None = None,
) -> Measured:
    """The time of the rule's tile, and of `others` candidates (all, if not said); one that answers otherwise than the
    rule's, or does not fit, is left out."""
    seconds = timer or _seconds
    call, x = _call(product, device, dtype, clips)
    rule = tiles.by_rule(product.kind, product.c_in, product.c_out, dtype, tiles.capability(x))
    with tiles.forced(rule):
        expected = call().double()
    tried: dict[Tile, float] = {}
    left_out: dict[Tile, str] = {}
    for tile in dict.fromkeys([rule, *tiles.candidates(product.c_out, dtype)[:others]]):
        with tiles.forced(tile):
            try:
                error = float((call().double() - expected).norm() / expected.norm())
                if error <= WORST:
                    tried[tile] = seconds(call)
                else:
                    left_out[tile] = f"differs by {error:.1e}"
            except Exception as error:  # too much shared memory, or a compiler that gives up
                left_out[tile] = type(error).__name__
    return Measured(tiles.key(product.kind, product.c_in, product.c_out, x), rule, tried, left_out)


def _seconds(call: Callable[[], object]) -> float:
    return float(do_bench(call, return_mode="median")) / 1e3


def _call(
    product: Product, device: torch.device, dtype: torch.dtype, clips: int
) -> tuple[Callable[[], Tensor], Tensor]:
    """What is timed, and a map it reads."""
    random = torch.Generator().manual_seed(0)
    split = list(product.split)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    def feature_map(c: int) -> Tensor:
        return noise(clips, product.frames, sum(split), product.columns, c).permute(0, 4, 1, 2, 3)

    x = feature_map(product.c_in)
    if product.kind == "weigh":
        gradient = feature_map(product.c_out)
        return lambda: arme.wgrad(gradient, x, None, split, []), x
    weights = noise(len(split), product.c_out, product.c_in, 3, 3, 3) / (27 * product.c_in) ** 0.5
    return lambda: arme.forward(x, weights, None, split, [], 0.01), x
