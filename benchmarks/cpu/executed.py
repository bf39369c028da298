"""Products inside the support, by Winograd, and as our native code executes them.

Outside the support, the silhouette grown by one position per convolution, every feature is exactly zero. Winograd's
F(4x4, 3x3) x F(t, 3) makes a tile of t frames of 4x4 positions with 6 x 6 x (t + 2) products per pair of channels,
where a direct convolution needs 27 for each position; its transforms are additions, and are not counted.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.core import flops
from benchmarks.core.flops import Layer
from hstl_fast import HSTLConfig, reference
from hstl_fast.backends.cpu import algorithm, library
from hstl_fast.backends.cpu.algorithm import AUTO, DIRECT, TILES, TRAINING_TILES
from hstl_fast.ops import _dispatch

# Rows and columns of a Winograd tile.
SIDE = 4
# The private operators' argument `algorithm` is resolved for float32.
DTYPE = torch.float32


class Products(NamedTuple):
    """Products of one step, each counted with its sum as one.

    dense: 27 for every position of a map. direct: the dense ones without the taps outside a region or a sequence, which
    no direct convolution needs. winograd: the whole maps, by Winograd wherever `auto` takes it. inside: 27 for every
    position inside the support, None where the support is not known. executed: those of our native code, by its own
    algorithm, inside the support.
    """

    dense: int
    direct: int
    winograd: int
    inside: int | None
    executed: int

    @property
    def flop(self) -> dict[str, int | None]:
        """Products and sums counted one by one, by the names of the results file."""
        return {f"{name}_flop": None if count is None else 2 * count for name, count in self._asdict().items()}


class Support(NamedTuple):
    """The support of a layer's input and of its output, `[1, t, h, w]` bool: the positions that may be non-zero."""

    x: Tensor
    y: Tensor


def embedding(config: HSTLConfig, clips: Sequence[Tensor]) -> Products:
    """Products of embedding these silhouettes `[t, 64, 44]`, which needs no classifier."""
    return total([of_layer(layer, s) for clip in clips for layer, s in _layers(config, clip)])


def training(config: HSTLConfig, clips: Sequence[Tensor]) -> Products:
    """Products of a training step on these silhouettes: forward, loss and the gradients of all parameters."""
    classifier = 3 * flops.classifier_macs(config)
    layers = [of_training(layer, s) for clip in clips for layer, s in _layers(config, clip)]
    return total([*layers, *[_same(classifier)] * len(clips)])


def of_layer(layer: Layer, support: Support | None = None) -> Products:
    """Products of a layer forward on one sequence; a layer called by itself has no support and computes whole maps."""
    return _passes(layer, support, [("y", TILES)])


def of_training(layer: Layer, support: Support | None = None) -> Products:
    """Products of a layer forward, of its data gradient where the input needs one, and of its weight gradient.

    The data gradient is the convolution of the output's gradient, needed inside the input's support; the weight
    gradient sums over the positions, or by Winograd over the tiles, of the output. The forward pass chooses among the
    tiles of training, the gradients among all.
    """
    dgrad = [("x", TILES)] if layer.differentiable_input else []
    return _passes(layer, support, [("y", TRAINING_TILES), *dgrad, ("y", TILES)])


def total(products: Sequence[Products]) -> Products:
    """The sum of several; `inside` is None unless it is known of all."""
    dense, direct, winograd, inside, executed = zip(*products, strict=True)
    known = None if None in inside else sum(inside)
    return Products(sum(dense), sum(direct), sum(winograd), known, sum(executed))


def supports(config: HSTLConfig, clip: Tensor) -> dict[str, Support]:
    """Supports of every convolution, by its module's name, for the silhouettes `[t, 64, 44]`."""
    found: dict[str, Support] = {}
    x = clip[None] > 0
    for i in range(len(config.stem)):
        found[f"stem.{i}"] = Support(x, reference.grow_support(x, [x.shape[2]]))
        x = found[f"stem.{i}"].y
    if config.pool:
        x = F.max_pool2d(x.float(), 2) > 0
    for s, stage in enumerate(config.stages):
        for i in range(len(stage.channels)):
            found[f"stages.{s}.{i}"] = Support(x, reference.grow_support(x, stage.split))
            x = found[f"stages.{s}.{i}"].y
        if s == 0:
            x = F.max_pool3d(x.float(), (5, 1, 1), (3, 1, 1), (1, 0, 0)) > 0
    return found


def tile_frames(layer: Layer, tiles: tuple[int, ...] = TILES) -> int:
    """Frames of the Winograd tile by which our native code computes the layer in float32, or `DIRECT`."""
    if library.cpu() is None:
        return DIRECT
    return _resolve(_dispatch.choose_algorithm(None, "cpu", DTYPE), layer, tiles)


def fewest_products(layer: Layer) -> int:
    """Frames of the Winograd tile with the fewest products, or `DIRECT` where the transforms would not pay."""
    return _resolve(AUTO, layer, TILES)


def tiles(support: Tensor, split: Sequence[int], frames: int) -> int:
    """Winograd tiles of `frames` frames that cover the support `[n, t, h, w]` as our native code lays them: each strip
    of `SIDE` rows of a region from its first column inside the support on, with gaps where there is none."""
    size = (frames, SIDE, 1)
    regions = support.float().split(list(split), 2)
    strips = torch.cat([F.max_pool3d(rows, size, size, ceil_mode=True) for rows in regions], 2) > 0
    found, covered = 0, torch.zeros(strips.shape[:3])
    for column in range(strips.shape[3]):
        begins = strips[..., column] & (covered <= column)
        covered[begins] = column + SIDE
        found += int(begins.sum())
    return found


def _layers(config: HSTLConfig, clip: Tensor) -> Iterator[tuple[Layer, Support | None]]:
    found = supports(config, clip)
    for layer in flops.layers(config, len(clip)):
        yield layer, found.get(layer.name)


def _resolve(chosen: int, layer: Layer, tiles: tuple[int, ...]) -> int:
    return algorithm.resolve(chosen, DTYPE, layer.c_in, layer.c_out, [layer.frames], tiles)


def _passes(layer: Layer, support: Support | None, passes: Sequence[tuple[str, tuple[int, ...]]]) -> Products:
    """Products of passes, each over the input's positions ("x") or the output's ("y") with a choice of tiles."""
    if layer.kind != "arme":
        return _same(layer.macs * len(passes))
    whole = torch.ones(1, layer.frames, layer.rows, layer.columns, dtype=torch.bool)
    inside = Support(whole, whole) if support is None else support
    maps = [(getattr(inside, name), tiles) for name, tiles in passes]
    return Products(
        dense=len(passes) * layer.macs,
        direct=len(passes) * layer.direct,
        winograd=len(passes) * _executed(layer, whole, fewest_products(layer)),
        inside=None if support is None else sum(_inside(layer, positions) for positions, _ in maps),
        executed=sum(_executed(layer, positions, tile_frames(layer, tiles)) for positions, tiles in maps),
    )


def _inside(layer: Layer, support: Tensor) -> int:
    return 27 * layer.c_in * layer.c_out * int(support.sum())


def _executed(layer: Layer, support: Tensor, frames: int) -> int:
    if frames == DIRECT:
        return min(layer.direct, _inside(layer, support))
    return (SIDE + 2) ** 2 * (frames + 2) * tiles(support, layer.split, frames) * layer.c_in * layer.c_out


def _same(count: int) -> Products:
    return Products(count, count, count, count, count)
