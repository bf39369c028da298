"""Distances of all probes to a gallery, and the search of a data set as large as OUMVLP's.

`python -m benchmarks.cpu.distances` compares implementations of the whole matrix of distances: correctness check
against float64, then interleaved rounds, medians. `--oumvlp` searches some blocks of probes in a gallery of 66,000
sequences, 50 parts of 256 channels, 14 views, and projects the time of all 66,000 probes; it needs 5 GiB of memory.
`--json FILE` stores what was printed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.core import machine
from benchmarks.core.interleaving import summarise
from benchmarks.core.text import in_one_line
from benchmarks.core.turns import in_turns
from benchmarks.cpu.runtimes import Unavailable
from hstl_fast.evaluation import comparison, part_distances
from hstl_fast.evaluation.search import nearest_of_groups

Distances = Callable[[Tensor, Tensor], Tensor]
PRODUCTS = "matrix products alone"
OURS = "hstl_fast"
# The error that is allowed, relative to the largest distance.
BOUND = 1e-5
# Probes whose answers are checked.
CHECKED = 32
OUMVLP, OUMVLP_VIEWS, OUMVLP_PARTS, OUMVLP_CHANNELS = 66_000, 14, 50, 256


def products_alone(probe: Tensor, gallery: Tensor) -> Tensor:
    """The sum over parts of the products: no distance, but the least that each of them has to compute."""
    total = probe.new_empty(len(probe), len(gallery))
    for part in range(probe.shape[1]):
        torch.mm(probe[:, part], gallery[:, part].T, out=total)
    return total


def product_form(probe: Tensor, gallery: Tensor) -> Tensor:
    """The form in which the field's evaluators compute it."""
    total = probe.new_zeros(len(probe), len(gallery))
    for part in range(probe.shape[1]):
        x, y = probe[:, part], gallery[:, part]
        square = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        total += square.relu().sqrt()
    return total / probe.shape[1]


def by_cdist(probe: Tensor, gallery: Tensor) -> Tensor:
    """`torch.cdist` per part, which takes products where there are more than 25 vectors."""
    total = probe.new_zeros(len(probe), len(gallery))
    for part in range(probe.shape[1]):
        total += torch.cdist(probe[:, part], gallery[:, part])
    return total / probe.shape[1]


def by_faiss(probe: Tensor, gallery: Tensor) -> Tensor:
    """The squared distances of FAISS per part, as its flat index computes them."""
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise Unavailable("FAISS is not installed (extra `peers`)") from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    total = np.zeros((len(probe), len(gallery)), np.float32)
    for part in range(probe.shape[1]):
        x, y = (np.ascontiguousarray(each[:, part]) for each in (probe.numpy(), gallery.numpy()))
        total += np.sqrt(np.maximum(faiss.pairwise_distances(x, y), 0))
    return torch.from_numpy(total) / probe.shape[1]


IMPLEMENTATIONS: dict[str, Distances] = {
    OURS: part_distances,
    PRODUCTS: products_alone,
    "product form in torch": product_form,
    "torch.cdist per part": by_cdist,
    "FAISS flat per part": by_faiss,
    "hstl_fast cosine": partial(part_distances, metric="cosine"),
}


def fault_of(name: str, probe: Tensor, gallery: Tensor) -> tuple[float | None, str | None]:
    """The largest error relative to the largest distance, and what is wrong; the products are no distances."""
    try:
        got = IMPLEMENTATIONS[name](probe, gallery)[:CHECKED].double()
    except Unavailable as error:
        return None, str(error)
    except Exception as error:  # a baseline's failure is a result
        return None, f"FAILED: {in_one_line(error)}"
    if name == PRODUCTS:
        return None, None
    a, b = probe[:CHECKED].double(), gallery.double()
    expected = torch.zeros(len(a), len(b), dtype=torch.float64)
    for part in range(a.shape[1]):
        if name == "hstl_fast cosine":
            x, y = (torch.nn.functional.normalize(each[:, part], dim=1) for each in (a, b))
            expected += 1 - x @ y.T
        else:
            expected += torch.cdist(a[:, part], b[:, part], compute_mode="donot_use_mm_for_euclid_dist")
    expected /= a.shape[1]
    error = float((got - expected).abs().max() / expected.max())
    return error, None if error <= BOUND else f"WRONG: error {error:.1e}"


def compare(n: int, k: int, parts: int, channels: int, rounds: int) -> dict[str, Any]:
    """Time of every implementation that is right, and of the products alone."""
    generator = torch.Generator().manual_seed(0)
    probe, gallery = (torch.randn(rows, parts, channels, generator=generator) for rows in (n, k))
    described: dict[str, Any] = {}
    calls: dict[str, Callable[[], Tensor]] = {}
    for name, compute in IMPLEMENTATIONS.items():
        error, fault = fault_of(name, probe, gallery)
        described[name] = {"error": error, "fault": fault}
        if fault is None:
            calls[name] = partial(compute, probe, gallery)
    seconds = {name: [each.seconds for each in found] for name, found in in_turns(calls, rounds).items()}
    flop = 2 * n * k * parts * channels
    for name, each in seconds.items():
        series = summarise(each)
        described[name] |= {**series._asdict(), "gflops": flop / series.median / 1e9, "seconds": each}
        ratios = [ours / products for ours, products in zip(each, seconds[PRODUCTS], strict=True)]
        described[name]["times_the_products"] = summarise(ratios).median
    return {"probes": n, "gallery": k, "parts": parts, "channels": channels, "implementations": described}


def embeddings(rows: int, people: int, seed: int) -> np.ndarray:
    """Embeddings of recordings of people in turns: a point for each person, and noise around it."""
    persons = np.random.default_rng(0)
    spread = np.random.default_rng(seed)
    made = np.empty((rows, OUMVLP_PARTS, OUMVLP_CHANNELS), np.float32)
    centres = persons.standard_normal((people, 1, OUMVLP_CHANNELS), dtype=np.float32)
    for start in range(0, rows, people):
        some = made[start : start + people]
        spread.standard_normal(dtype=np.float32, out=some)
        some += centres[: len(some)]
    return made


def project(blocks: int, k: int = OUMVLP) -> dict[str, Any]:
    """The search of OUMVLP's gallery for the nearest of every view, some blocks of probes measured."""
    people = k // OUMVLP_VIEWS
    gallery = embeddings(k, people, 1)
    views = np.minimum(np.arange(k) // people, OUMVLP_VIEWS - 1)
    block = comparison.block_size(k, OUMVLP_PARTS, OUMVLP_CHANNELS, itemsize=4)
    probe = embeddings(block * blocks, people, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    moments, used = list[float](), list[float]()

    def progress(*_: object) -> None:
        moments.append(time.perf_counter())
        used.append(time.process_time())

    start = time.perf_counter()
    found = nearest_of_groups(probe, gallery, views, progress=progress)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    right = float((found % people == (np.arange(len(probe)) % people)[:, None]).mean())
    of_block = float(np.median(np.diff(moments)))
    preparation = (moments[0] - start) * (k + OUMVLP) / (k + len(probe))
    return {
        "gallery": k,
        "probes_measured": len(probe),
        "probes_of_a_block": block,
        "seconds_of_a_block": of_block,
        "cpu_seconds_of_a_block": float(np.median(np.diff(used))),
        "gflops": 2 * block * k * OUMVLP_PARTS * OUMVLP_CHANNELS / of_block / 1e9,
        "rank_one": right,
        "memory_bytes": memory,
        "projected_seconds": preparation + of_block * OUMVLP / block,
    }


def main(arguments: list[str]) -> None:
    """Measure what the command line says, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu.distances", description=__doc__)
    for name, default in (("probes", 1024), ("gallery", 4096), ("parts", 50), ("channels", 256), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--oumvlp", action="store_true", help="search a gallery of OUMVLP's size instead")
    parser.add_argument("--blocks", type=int, default=3, help="blocks of probes to measure with --oumvlp")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.oumvlp:
        result = project(given.blocks)
        print(
            f"{result['probes_of_a_block']} probes x {OUMVLP}: {result['seconds_of_a_block']:.1f} s "
            f"({result['cpu_seconds_of_a_block']:.1f} s of processors' time), "
            f"{result['gflops']:.0f} GFLOP/s; {OUMVLP} x {OUMVLP}: {result['projected_seconds'] / 60:.1f} minutes, "
            f"{result['memory_bytes'] / 2**20:.0f} MiB beside the embeddings"
        )
    else:
        result = compare(given.probes, given.gallery, given.parts, given.channels, given.rounds)
        for name, row in result["implementations"].items():
            print(f"{name:24}", row["fault"] or _line(row))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine.description(), **result}, indent=1) + "\n")


def _line(row: dict[str, Any]) -> str:
    error = "" if row["error"] is None else f", error {row['error']:.1e}"
    return (
        f"{row['median']:7.2f} s ({row['low']:.2f} to {row['high']:.2f}), {row['gflops']:4.0f} GFLOP/s, "
        f"x{row['times_the_products']:.2f} of the products{error}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
