"""Stage tune: the fastest tile on this device for each product of Triton's convolution."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu import clips, timing
from benchmarks.gpu.guarded import guarded
from benchmarks.gpu.supervise import Job, Reporter, Row
from hstl_fast.ops import _dispatch

if TYPE_CHECKING:
    from hstl_fast.backends.triton.tuning import Gemm

# The file in the folder of the results that HSTL_FAST_TILES may name afterwards.
FILE = "tiles.json"
DTYPE = torch.bfloat16
REPEATS = 7


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job of one row for each product of the published networks; none where Triton cannot run."""
    if _dispatch.why_not("arme", "triton", device.type, torch.bfloat16) is not None:
        return []
    return [Job("tune", product.name, (product.name,), 150) for product in products(tiny)]


def execute(job: Job, reporter: Reporter, device: torch.device, tiny: bool) -> None:
    """Measure the tiles of one product."""
    product = next(p for p in products(tiny) if p.name == job.name)
    reporter.started(job.keys[0])
    row = guarded(functools.partial(measure, product, device, tiny), device, reporter, job.keys[0])
    reporter.finished(job.keys[0], row)


def products(tiny: bool) -> "list[Gemm]":
    """The GEMMs of all published networks, those with the most arithmetic first."""
    from hstl_fast.backends.triton import tuning

    configs = [clips.config(preset, tiny) for preset in ("casia-b", "gait3d", "oumvlp")]
    return tuning.gemms(layer for config in configs for layer in config.convolutions(3 if tiny else 30))


def measure(product: "Gemm", device: torch.device, tiny: bool) -> Row:
    """Every candidate's time, the rule's first."""
    from hstl_fast.backends.triton import tuning

    def seconds(call: Callable[[], object]) -> float:
        return median(timing.device_seconds(call, device, 1e-4) for _ in range(REPEATS))

    count = 1 if tiny else tuning.CLIPS
    found = tuning.measure(product, device, DTYPE, count, seconds, 2 if tiny else None)
    best = found.tried[found.best]
    return {
        "status": "ok",
        "key": found.key,
        "tile": found.best._asdict(),
        "seconds": best,
        "flop_per_second": count * product.flop / best,
        "rule": found.rule._asdict(),
        "seconds_by_rule": found.tried[found.rule],
        "tried": [[list(tile), spent] for tile, spent in found.tried.items()],
        "left_out": {str(tuple(tile)): why for tile, why in found.left_out.items()},
    }


def write(folder: Path, rows: Mapping[str, Row]) -> Path | None:
    """The fastest tiles of all rows; None if there is none."""
    from hstl_fast.backends.triton import tiles

    best = {row["key"]: tiles.Tile(**row["tile"]) for row in rows.values() if row["status"] == "ok"}
    if not best:
        return None
    tiles.write(folder / FILE, best)
    return folder / FILE
