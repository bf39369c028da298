"""Tiles: how much of a GEMM one program computes, by rule or as measured on a GPU.

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

from hstl_fast import environment
from hstl_fast.files import atomic_file

# The kinds of GEMMs that have tiles: "conv" is forward, and with channels swapped dgrad; "wgrad" is wgrad.
GEMMS = ("conv", "wgrad")
# A file without tiles raises one of these when it is read. A file of another version names the fields otherwise.
UNREADABLE = (OSError, ValueError, TypeError, AttributeError)


class Tile(NamedTuple):
    """The part of a GEMM that one program computes, and the means it has.

    Attributes:
        block_m: rows: active sites; in wgrad, neighbours times input channels.
        block_n: columns: output channels.
        block_k: terms summed in one step: neighbours times input channels; in wgrad, active sites.
        num_warps: warps of a program.
        num_stages: steps whose operands are on their way at the same time.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


_forced: ContextVar[Tile | None] = ContextVar("tile", default=None)


@contextmanager
def forced(tile: Tile) -> Iterator[None]:
    """A context in which every GEMM has this tile."""
    token = _forced.set(tile)
    try:
        yield
    finally:
        _forced.reset(token)


def tile_for(kind: str, c_in: int, c_out: int, x: Tensor) -> Tile:
    """The tile of a GEMM of one of the kinds `GEMMS`, on x's device and of its type."""
    tile = _forced.get() or _measured(environment.tiles()).get(key(kind, c_in, c_out, x))
    return by_rule(kind, c_in, c_out, x.dtype, capability(x)) if tile is None else tile


def by_rule(kind: str, c_in: int, c_out: int, dtype: torch.dtype, gpu: tuple[int, int]) -> Tile:
    """A tile with all output channels, up to 128, so that gathered inputs are used for all of them.

    A tile of 128 x 128 in 16 bits takes 32 KiB from the second-level cache for 2.1 MFLOP; twice the rows make that half
    as much again per byte. Hopper has the registers for them: its products take both sides from shared memory.
    `gpu` is the compute capability.
    """
    narrow = dtype.itemsize == 2
    block_n = power_of_2(c_out, 16, 128)
    block_m = 256 if kind == "conv" and narrow and block_n == 128 and gpu >= (9, 0) else 128
    terms = c_in if kind == "conv" else 64
    block_k = power_of_2(terms, 32, 64 if narrow else 32)
    many_warps = block_n == 128 or (kind == "conv" and not narrow)  # else Blackwell's compiler spills
    return Tile(block_m, block_n, block_k, 8 if many_warps else 4, 3)


def candidates(c_out: int, dtype: torch.dtype) -> list[Tile]:
    """The tiles worth measuring: accumulators fit in registers, and the operands of all stages in shared memory."""
    found = []
    for block_m in (128, 256):
        for block_n in sorted({power_of_2(c_out, 16, most) for most in (128, 256)}):
            for block_k in (32, 64):
                for num_stages in (3, 4):
                    num_warps = 4 if block_m * block_n <= 128 * 64 else 8
                    shared = num_stages * (block_m + block_n) * block_k * dtype.itemsize
                    if block_m * block_n <= 128 * 256 and shared <= 200 << 10:
                        found.append(Tile(block_m, block_n, block_k, num_warps, num_stages))
    return found


def key(kind: str, c_in: int, c_out: int, x: Tensor) -> str:
    """The key of a measured tile in a file."""
    gpu = torch.cuda.get_device_name(x.device) if x.device.type == "cuda" else x.device.type
    return f"{gpu} | {kind} | {c_in}-{c_out} | {str(x.dtype).removeprefix('torch.')}"


def own_file() -> Path:
    """The file of the user's own, where tiles measured by `hstl-fast tune` are found again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "hstl_fast" / "tiles.json"


def write(path: Path, tiles: Mapping[str, Tile]) -> None:
    """Write measured tiles, by `key`, beside those that the file has under other keys.

    A tile that was measured in bfloat16 is written for float16, too.
    """
    tiles = {**tiles, **{name.replace("bfloat16", "float16"): tile for name, tile in tiles.items()}}
    rows = {name: tile._asdict() for name, tile in sorted({**_read_or_none(path), **tiles}.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    _measured.cache_clear()


@functools.cache
def _measured(path: str | None) -> dict[str, Tile]:
    """The tiles in the file named, which must hold some, or in the user's own, which need not."""
    if path is None:
        return _read_or_none(own_file())
    try:
        return _read(Path(path))
    except UNREADABLE as error:
        name = environment.TILES.name
        raise ValueError(f"{name} must name a file of measured tiles, got {path!r}: {error}") from None


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
    """The compute capability of x's device, as NVIDIA counts it; (0, 0) for any other device."""
    if x.device.type != "cuda" or torch.version.hip is not None:
        return 0, 0
    return torch.cuda.get_device_capability(x.device)


def power_of_2(size: int, least: int, most: int) -> int:
    """The next power of two, within limits."""
    return min(max(1 << (size - 1).bit_length(), least), most)
