"""How much one program of a product computes: by rule, or as measured on a GPU.

A tile depends on the GPU, on the channels and on the element type; never on frames, so that ragged data meet one tile.
"""

import functools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hstl_fast.files import atomic_file

ENVIRONMENT_VARIABLE = "HSTL_FAST_TILES"
"""Names a file of measured tiles, as `write` makes it, instead of the user's own."""
PRODUCTS = ("convolve", "weigh")
"""What tiles are for: the convolution, forward and back, and the gradient of its weights."""


class Tile(NamedTuple):
    """How much one program computes, and with what."""

    rows: int
    """Positions; in the gradient of the weights, neighbours times input channels."""
    cols: int
    """Output channels."""
    depth: int
    """Terms summed at a time: of neighbours times channels; in the gradient of the weights, positions."""
    warps: int
    stages: int
    """How many of them are on their way at once."""


_forced: ContextVar[Tile | None] = ContextVar("tile", default=None)


@contextmanager
def forced(tile: Tile) -> Iterator[None]:
    """A context in which every product has this tile."""
    token = _forced.set(tile)
    try:
        yield
    finally:
        _forced.reset(token)


def tile_for(product: str, c_in: int, c_out: int, x: Tensor) -> Tile:
    """The tile of a product on x's device and of its type."""
    tile = _forced.get() or _measured(os.environ.get(ENVIRONMENT_VARIABLE, "")).get(key(product, c_in, c_out, x))
    return by_rule(product, c_in, c_out, x.dtype, capability(x)) if tile is None else tile


def by_rule(product: str, c_in: int, c_out: int, dtype: torch.dtype, gpu: tuple[int, int]) -> Tile:
    """All output channels, up to 128, so that gathered inputs are used for all of them.

    A tile of 128 x 128 in 16 bits takes 32 KiB from the second-level cache for 2.1 MFLOP; twice the rows make that half
    as much again per byte. Hopper has the registers for them: its products take both sides from shared memory.
    `gpu`: compute capability.
    """
    narrow = dtype.itemsize == 2
    cols = power_of_2(c_out, 16, 128)
    rows = 256 if product == "convolve" and narrow and cols == 128 and gpu >= (9, 0) else 128
    terms = c_in if product == "convolve" else 64
    depth = power_of_2(terms, 32, 64 if narrow else 32)
    many_warps = cols == 128 or (product == "convolve" and not narrow)  # else Blackwell's compiler spills
    return Tile(rows, cols, depth, 8 if many_warps else 4, 3)


def candidates(c_out: int, dtype: torch.dtype) -> list[Tile]:
    """What is worth measuring: register tiles that fit, with depths and stages whose operands fit in shared memory."""
    found = []
    for rows in (128, 256):
        for cols in sorted({power_of_2(c_out, 16, most) for most in (128, 256)}):
            for depth in (32, 64):
                for stages in (3, 4):
                    warps = 4 if rows * cols <= 128 * 64 else 8
                    shared = stages * (rows + cols) * depth * dtype.itemsize
                    if rows * cols <= 128 * 256 and shared <= 200 << 10:
                        found.append(Tile(rows, cols, depth, warps, stages))
    return found


def key(product: str, c_in: int, c_out: int, x: Tensor) -> str:
    """Under which a measured tile is kept."""
    gpu = torch.cuda.get_device_name(x.device) if x.device.type == "cuda" else x.device.type
    return f"{gpu} | {product} | {c_in}-{c_out} | {str(x.dtype).removeprefix('torch.')}"


def own_file() -> Path:
    """Where tiles measured by `hstl-fast tune` are found again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "hstl_fast" / "tiles.json"


def write(path: Path, tiles: Mapping[str, Tile]) -> None:
    """Measured tiles, by `key`, beside those that the file has under other keys. What was measured in bfloat16 is for
    float16 too."""
    tiles = {**tiles, **{name.replace("bfloat16", "float16"): tile for name, tile in tiles.items()}}
    rows = {name: tile._asdict() for name, tile in sorted({**_read_or_none(path), **tiles}.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    _measured.cache_clear()


@functools.cache
def _measured(path: str) -> dict[str, Tile]:
    """From the file named, or from the user's own, which is no reason to fail."""
    if not path:
        return _read_or_none(own_file())
    try:
        return _read(Path(path))
    except UNREADABLE as error:
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must name a file of measured tiles, got {path!r}: {error}") from None


UNREADABLE = (OSError, ValueError, TypeError, AttributeError)


def _read_or_none(path: Path) -> dict[str, Tile]:
    if not path.exists():
        return {}
    try:
        return _read(path)
    except UNREADABLE as error:
        logging.getLogger("hstl_fast").warning("%s holds no measured tiles and is not used: %s", path, error)
        return {}


def _read(path: Path) -> dict[str, Tile]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {name: Tile(**row) for name, row in rows.items()}


def capability(x: Tensor) -> tuple[int, int]:
    """Of x's device, NVIDIA's count; (0, 0) for anybody else's."""
    if x.device.type != "cuda" or torch.version.hip is not None:
        return 0, 0
    return torch.cuda.get_device_capability(x.device)


def power_of_2(size: int, least: int, most: int) -> int:
    """The next power of two, within limits."""
    return min(max(1 << (size - 1).bit_length(), least), most)
