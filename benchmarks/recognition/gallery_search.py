"""The search of a large gallery in a memory-mapped file: by hstl_fast, by two processes of it, and by FAISS.

    python -m benchmarks.recognition.gallery_search --recordings 100000 --output FILE.json

A gallery of casia-b's size is drawn at random (4 GB on the disk), and every way of searching it runs in a process of
its own, so that its memory is known. Checked are the people and recordings that are found, against distances in
float64. `--folder DIR` keeps the gallery for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.core import machine
from benchmarks.core.interleaving import summarise, timed
from benchmarks.core.markdown import table
from benchmarks.core.names import OURS
from benchmarks.core.text import in_one_line
from benchmarks.recognition import candidates
from benchmarks.recognition.made import CHANNELS, PARTS, Made, gallery
from hstl_fast.recognition.mapped import MappedRows
from hstl_fast.recognition.search import Nearest, nearest_people
from hstl_fast.recognition.shards import Shards

SHARDS = "two processes"
# People that are found, probes of the largest search, and probes that are checked in float64.
COUNT, PROBES, CHECKED = 5, 64, 2
# Probes that are searched at once.
SIZES = (1, 8, PROBES)
STATUS = Path("/proc/self/status")


def in_float64(made: Made) -> Nearest:
    """The nearest people of the first and the last probes, spelled out."""
    found: list[list[Any]] = [[], [], []]
    for probe in torch.from_numpy(made.probe[_checked()]).double():
        pieces = [
            (torch.from_numpy(made.vectors[first : first + 500].copy()).double() - probe)
            .square_()
            .sum(2)
            .sqrt_()
            .mean(1)
            for first in range(0, len(made.vectors), 500)
        ]
        distances = torch.cat(pieces).numpy()
        order = np.argsort(distances, kind="stable")
        rows = order[np.sort(np.unique(made.people[order], return_index=True)[1])][:COUNT]
        for into, values in zip(found, (made.people[rows], rows, distances[rows]), strict=True):
            into.append(values)
    return Nearest(*map(np.array, found))


def _checked() -> list[int]:
    return np.linspace(0, PROBES - 1, CHECKED).astype(int).tolist()


def fault_of(found: Nearest, expected: Nearest) -> str | None:
    """The fault of the answers to all probes, as far as they were checked, or None."""
    checked = _checked()
    for name, got, right in zip(found._fields, found, expected, strict=True):
        if name != "distances" and not np.array_equal(got[checked], right):
            return f"WRONG {name}"
    error = float(np.abs(found.distances[checked] / expected.distances - 1).max())
    return None if error <= 1e-12 else f"WRONG distances: error {error:.1e}"


def _peak_bytes() -> int | None:
    """The most memory that this process had at once, pages of mapped files included; None where that is not told."""
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _bytes_read() -> int:
    """Bytes that this process has had fetched from a disk so far; 0 where that is not told."""
    told = Path("/proc/self/io")
    lines = told.read_text().splitlines() if told.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _forget(made: Made) -> None:
    """Let the system drop the file from its cache."""
    assert isinstance(made.vectors, np.memmap)
    MappedRows(made.vectors).release(0, len(made.vectors))  # what a process has mapped stays
    with Path(made.vectors.filename).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_ours(made: Made, rounds: int) -> dict[str, Any]:
    """Seconds of searches when the file is in the system's cache and when it is not, and the answers."""
    search = {n: partial(nearest_people, made.probe[:n], made.vectors, made.people, COUNT) for n in SIZES}
    answers = search[PROBES]()
    seconds = {n: [timed(search[n]) for _ in range(rounds)] for n in SIZES}
    cold: list[float] = []
    read: list[int] = []
    for _ in range(2 if hasattr(os, "posix_fadvise") and isinstance(made.vectors, np.memmap) else 0):
        _forget(made)
        before = _bytes_read()
        cold.append(timed(search[1]))
        read.append(_bytes_read() - before)
    return {"answers": answers, "seconds": seconds, "cold_seconds": cold, "cold_bytes_read": read}


def measure_shards(made: Made, rounds: int) -> dict[str, Any]:
    """Seconds of searches by all processes of torchrun, and the answers."""
    with Shards.join() as shards:
        share = shards.share(len(made.vectors))
        mine = made.vectors[share], made.people[share], COUNT
        answers = shards.nearest_people(made.probe, *mine)
        seconds = {
            n: [timed(partial(shards.nearest_people, made.probe[:n], *mine)) for _ in range(rounds)] for n in SIZES
        }
    return {"answers": answers, "seconds": seconds}


def measure_faiss(name: str, made: Made, rounds: int) -> dict[str, Any]:
    """Seconds of searches by an index of FAISS and of its construction, and the answers."""
    index = candidates.INDICES[name](made)
    search = {n: partial(candidates.search, index, made, made.probe[:n], COUNT) for n in SIZES}
    answers = search[PROBES]()
    seconds = {n: [timed(search[n]) for _ in range(rounds)] for n in SIZES}
    return {"answers": answers, "seconds": seconds, "build_seconds": index.build_seconds}


def measure(name: str, given: argparse.Namespace) -> None:
    """Measure one way of searching in this process, and write what was found into the folder."""
    start = time.perf_counter()
    made = gallery(given.folder, given.recordings, given.people, PROBES)
    opened = time.perf_counter() - start
    if name == OURS:
        found = measure_ours(made, given.rounds)
    elif name == SHARDS:
        found = measure_shards(made, given.rounds)
    else:
        found = measure_faiss(name, made, given.rounds)
    found |= {"open_seconds": opened, "peak_bytes": _peak_bytes(), "threads": torch.get_num_threads()}
    answers = {key: values.tolist() for key, values in found.pop("answers")._asdict().items()}
    if int(os.environ.get("RANK", "0")) == 0:
        (given.folder / "found.json").write_text(json.dumps({**found, "answers": answers}))


def run(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure one way of searching in a process of its own; two of them by torchrun."""
    command = [sys.executable, "-m"]
    environment = dict(os.environ)
    if name == SHARDS:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
        environment["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // 2))
    command += ["benchmarks.recognition.gallery_search", "--measure", name, "--folder", str(given.folder)]
    for option in ("recordings", "people", "rounds"):
        command += [f"--{option}", str(getattr(given, option))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"fault": "FAILED: " + in_one_line(RuntimeError(lines[-1] if lines else f"exit {done.returncode}"))}
    result: dict[str, Any] = json.loads((given.folder / "found.json").read_text())
    return result


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Measure every way of searching, and check what it found."""
    made = gallery(given.folder, given.recordings, given.people, PROBES)
    expected = in_float64(made)
    MappedRows(made.vectors).release(0, len(made.vectors))
    ours: Nearest | None = None
    described: dict[str, Any] = {}
    for name in (OURS, SHARDS, *candidates.INDICES):
        found = run(name, given)
        if "answers" in found:
            answers = Nearest(*(np.array(values) for values in found.pop("answers").values()))
            if name in (OURS, SHARDS):
                found["fault"] = fault_of(answers, expected)
            if ours is None:
                ours = answers
            found["same_as_ours"] = all(np.array_equal(one, other) for one, other in zip(answers, ours, strict=True))
            found["recall_of_first"] = float((answers.people[:, 0] == ours.people[:, 0]).mean())
            shared = [len(np.intersect1d(one, other)) for one, other in zip(answers.people, ours.people, strict=True)]
            found["recall_of_all"] = float(np.mean(shared) / COUNT)
            found["seconds"] = {
                n: {**summarise(each)._asdict(), "seconds": each} for n, each in found["seconds"].items()
            }
        described[name] = found
        print(f"{name}: {found.get('fault') or 'done'}", file=sys.stderr, flush=True)
    return {
        "recordings": given.recordings,
        "people": given.people,
        "parts": PARTS,
        "channels": CHANNELS,
        "bytes": made.vectors.nbytes,
        "fill_seconds": made.fill_seconds,
        "checked_in_float64": CHECKED,
        "ways": described,
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """The table of what was measured."""
    headers = [
        "search",
        *(f"{n} probes, s" for n in SIZES),
        "cold, s",
        "memory, GiB",
        "build, s",
        "first",
        f"all {COUNT}",
    ]
    rows = []
    for name, way in result["ways"].items():
        if "seconds" not in way:
            rows.append([name, way["fault"], *[""] * (len(headers) - 2)])
            continue
        medians = [f"{way['seconds'][str(n)]['median']:.2f}" for n in SIZES]
        cold = [f"{seconds:.2f}" for seconds in way.get("cold_seconds", [])]
        memory = "" if way["peak_bytes"] is None else f"{way['peak_bytes'] / 2**30:.2f}"
        recall = way.get("fault") or f"{way['recall_of_first']:.3f}"
        build = f"{way.get('build_seconds', 0):.1f}"
        rows.append([name, *medians, " ".join(cold), memory, build, recall, f"{way['recall_of_all']:.3f}"])
    return list(table(headers, rows))


def main(arguments: list[str]) -> None:
    """Measure what the command line says, print it and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recognition.gallery_search", description=__doc__)
    for name, default in (("recordings", 100_000), ("people", 20_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="keep the gallery here for the next run")
    parser.add_argument("--output", type=Path, help="write everything that was measured to this JSON file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        measure(given.measure, given)
        return
    with tempfile.TemporaryDirectory() as temporary:
        given.folder = given.folder or Path(temporary) / "gallery"
        result = compare(given)
    print("\n".join(lines_of(result)))
    if given.output:
        given.output.write_text(json.dumps({"machine": machine.description(), **result}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
