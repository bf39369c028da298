"""Dense arithmetic and memory traffic of HSTL's layers, counted from the configuration.

A MAC is a product and a sum. `benchmarks/cpu/executed.py` counts what remains inside the support and by Winograd.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hstl_fast import HSTLConfig
from hstl_fast.models.config import COLUMNS, ROWS

# Bytes of a float32.
FLOAT = 4


class Layer(NamedTuple):
    """One layer of a network on one sequence.

    name: of its module in `HSTL`. macs: dense products, those on padding included. direct: the same without the taps
    outside a region or the sequence. bytes: input, parameters and output, each moved once in float32.
    """

    name: str
    kind: str
    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    rows: int
    columns: int
    macs: int
    direct: int
    bytes: int

    def __str__(self) -> str:
        split = ",".join(map(str, self.split))
        regions = f"{len(self.split)} strips" if self.kind == "strip_pool" else f"[{split}]"
        return f"{self.kind} {self.c_in}-{self.c_out} {regions} {self.frames}x{self.rows}x{self.columns}"

    @property
    def differentiable_input(self) -> bool:
        """True if training needs the gradient of the layer's input; silhouettes, the first layer's input, need none."""
        return self.name != "stem.0"


def layers(config: HSTLConfig, frames: int) -> list[Layer]:
    """Every layer of the network on a sequence of `frames` (at least 3), in the order of computation, the head last."""
    h, w, t, c = ROWS, COLUMNS, frames, 1
    pools = iter(enumerate(config.pools))
    found: list[Layer] = []
    for i, c_out in enumerate(config.stem):
        found.append(_arme(f"stem.{i}", c, c_out, (h,), t, h, w))
        c = c_out
    found.append(_astp(*next(pools), t, h, w))
    if config.pool:
        h, w = h // 2, w // 2
    for s, stage in enumerate(config.stages):
        for i, c_out in enumerate(stage.channels):
            found.append(_arme(f"stages.{s}.{i}", c, c_out, stage.split, t, h, w))
            c = c_out
        found.append(_astp(*next(pools), t, h, w))
        if s == 0:
            found.append(_fta(c, stage.split, t, h, w))
            t //= 3
            found.append(_astp(*next(pools), t, h, w))
    found.append(_strips(config.strips, c, t, h, w))
    return [*found, _head(config)]


def macs(config: HSTLConfig, lengths: Sequence[int]) -> int:
    """Dense products of embedding sequences of these lengths; the classifier is not needed for that."""
    return sum(layer.macs for t in lengths for layer in layers(config, t))


def classifier_macs(config: HSTLConfig) -> int:
    """Dense products of one sequence's logits."""
    return config.parts * config.channels * config.num_classes


def passes(layer: Layer) -> int:
    """The times that a training step computes a layer's products: three (forward and both gradients), or twice where
    the input needs no gradient."""
    return 3 if layer.differentiable_input else 2


def training_macs(layer: Layer) -> int:
    """Dense products of a training step of the layer."""
    return layer.macs * passes(layer)


def taps(size: int) -> int:
    """Pairs of a position and one of its three neighbours (itself among them), both among `size` in a row."""
    return 3 * size - 2


def _arme(name: str, c_in: int, c_out: int, split: tuple[int, ...], t: int, h: int, w: int) -> Layer:
    weights = len(split) * 27 * c_in * c_out
    moved = FLOAT * (t * h * w * (c_in + c_out) + weights)
    direct = taps(t) * sum(map(taps, split)) * 3 * w * c_in * c_out  # columns are padded, frames and rows are not
    return Layer(name, "arme", c_in, c_out, split, t, h, w, t * h * w * 27 * c_in * c_out, direct, moved)


def _astp(index: int, pool: tuple[int, int | None, tuple[int, ...]], t: int, h: int, w: int) -> Layer:
    c_in, projected, split = pool
    c_out = c_in if projected is None else projected
    weights = 0 if projected is None else c_in * c_out
    moved = FLOAT * (t * h * w * c_in + weights + len(split) * (1 + c_out))
    macs = h * w * weights
    return Layer(f"pools.{index}", "astp", c_in, c_out, split, t, h, w, macs, macs, moved)


def _fta(c: int, split: tuple[int, ...], t: int, h: int, w: int) -> Layer:
    weights = len(split) * 2 * c * c
    moved = FLOAT * ((t + t // 3) * h * w * c + weights + len(split) * 2 * c)
    macs = (t // 3) * weights
    return Layer("fta", "fta", c, c, split, t, h, w, macs, macs, moved)


def _strips(bins: int, c: int, t: int, h: int, w: int) -> Layer:
    moved = FLOAT * (t * h * w * c + 1 + bins * c)
    return Layer("strips", "strip_pool", c, c, (h // bins,) * bins, t, h, w, 0, 0, moved)


def _head(config: HSTLConfig) -> Layer:
    parts, c = config.parts, config.channels
    macs = parts * c * c
    return Layer("parts", "head", c, c, (1,) * parts, 1, parts, 1, macs, macs, FLOAT * parts * c * (c + 2))
