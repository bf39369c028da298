"""Stage tune: which tile is fastest for each product of Triton's convolution, here."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import flops
from benchmarks.gpu import clips, clock
from benchmarks.gpu.attempts import attempt
from benchmarks.gpu.supervise import Job, Row, Say
from hstl_fast.ops import _dispatch

FILE = "tiles.json"
"""In the results' folder: what HSTL_FAST_TILES may name afterwards."""
CLIPS = 16
DTYPE = torch.bfloat16
REPEATS = 7
WORST = 2e-2
"""Of an answer in 16 bits, relative to the norm of the rule's."""


class Product(NamedTuple):
    """One matrix product of a layer: "convolve", forward or, with channels swapped, of the data's gradient; "weigh"."""

    kind: str
    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    rows: int
    columns: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.c_in}-{self.c_out}"


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job of one row for each product of the published networks; none where Triton cannot run."""
    if _dispatch.why_not("arme", "triton", device.type, torch.bfloat16) is not None:
        return []
    return [Job("tune", product.name, (product.name,), 150) for product in products(tiny)]


def execute(job: Job, say: Say, device: torch.device, tiny: bool) -> None:
    """Measure the tiles of one product."""
    product = next(p for p in products(tiny) if p.name == job.name)
    say.doing(job.keys[0])
    say.row(job.keys[0], attempt(functools.partial(measure, product, device, tiny), device, say, job.keys[0]))


def products(tiny: bool) -> list[Product]:
    """The most arithmetic first."""
    found: dict[str, tuple[int, Product]] = {}
    for preset in ("casia-b", "gait3d", "oumvlp"):
        for layer in flops.layers(clips.config(preset, tiny), 3 if tiny else 30):
            if layer.kind == "arme":
                size = (layer.split, layer.frames, layer.rows, layer.columns)
                there, back = (layer.c_in, layer.c_out), (layer.c_out, layer.c_in)
                kinds = [("convolve", there), ("weigh", there), *([("convolve", back)] if layer.c_in > 1 else [])]
                for kind, channels in kinds:
                    product = Product(kind, *channels, *size)
                    found.setdefault(product.name, (layer.macs, product))
    return [product for _, product in sorted(found.values(), key=lambda pair: -pair[0])]


def measure(product: Product, device: torch.device, tiny: bool) -> Row:
    """Every candidate's time, the rule's first; one that answers otherwise, or does not fit, is left out."""
    from hstl_fast.triton_kernels import tiles

    call, x = _call(product, device, tiny)
    rule = tiles.by_rule(product.kind, product.c_in, product.c_out, x.dtype, tiles.capability(x))
    with tiles.forced(rule):
        expected = call().double()
    seconds, faults = {}, {}
    others = tiles.candidates(product.c_out, x.dtype)
    for tile in dict.fromkeys([rule, *(others[:2] if tiny else others)]):
        with tiles.forced(tile):
            try:
                error = float((call().double() - expected).norm() / expected.norm())
                if not error <= WORST:
                    faults[str(tuple(tile))] = f"differs by {error:.1e}"
                    continue
                seconds[tile] = median(clock.device_seconds(call, device, 1e-4) for _ in range(REPEATS))
            except Exception as error:  # too much shared memory, or a compiler that gives up
                faults[str(tuple(tile))] = type(error).__name__
    best = min(seconds, key=lambda tile: seconds[tile])
    flop = 2 * 27 * product.c_in * product.c_out * _positions(product, tiny)
    return {
        "status": "ok",
        "key": tiles.key(product.kind, product.c_in, product.c_out, x),
        "tile": best._asdict(),
        "seconds": seconds[best],
        "flop_per_second": flop / seconds[best],
        "rule": rule._asdict(),
        "seconds_by_rule": seconds[rule],
        "tried": [[list(tile), found] for tile, found in seconds.items()],
        "left_out": faults,
    }


def write(folder: Path, rows: Mapping[str, Row]) -> Path | None:
    """The fastest tiles of all rows, for 16-bit types alike; None if there is none."""
    if not any(row["status"] == "ok" for row in rows.values()):
        return None
    from hstl_fast.triton_kernels import tiles

    best = {row["key"]: tiles.Tile(**row["tile"]) for row in rows.values() if row["status"] == "ok"}
    best |= {name.replace("bfloat16", "float16"): tile for name, tile in best.items()}
    tiles.write(folder / FILE, best)
    return folder / FILE


def _call(product: Product, device: torch.device, tiny: bool) -> tuple[Callable[[], Tensor], Tensor]:
    """What is timed, and a map it reads."""
    from hstl_fast.triton_kernels import arme

    random = torch.Generator().manual_seed(0)
    n, split = 1 if tiny else CLIPS, list(product.split)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, DTYPE)

    def feature_map(c: int) -> Tensor:
        x = noise(n, product.frames, product.rows, product.columns, c)
        return x.permute(0, 4, 1, 2, 3)

    x = feature_map(product.c_in)
    if product.kind == "weigh":
        gradient = feature_map(product.c_out)
        return lambda: arme.backward_weight(gradient, x, None, split, []), x
    weights = noise(len(split), product.c_out, product.c_in, 3, 3, 3) / (27 * product.c_in) ** 0.5
    return lambda: arme.forward(x, weights, None, split, [], 0.01), x


def _positions(product: Product, tiny: bool) -> int:
    return (1 if tiny else CLIPS) * product.frames * product.rows * product.columns
