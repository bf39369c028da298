"""Two processes write to one gallery and a third reads it: nothing is lost, nothing is seen half-written.

    python -m benchmarks.recognition.sharing [--seconds N] [--url URL] [--json FILE]

Each writer enrols people with three recordings each, and renames and removes some of its own; the reader searches the
gallery over and over, and each time everybody must have all three. At the end the gallery must hold what both
writers have put into it. Without `--url` the gallery is a file in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.core.machine import description, threads
from benchmarks.recognition.killing import CLIPS, Change, State
from benchmarks.recognition.small import random_walk, refuse_people, small_network
from hstl_fast.network import Network
from hstl_fast.recognition import Gallery, GalleryError

# A writer does not let the gallery grow without end.
MOST_PEOPLE = 40


def write(url: str, network: Network, seconds: float, writer: int, result: Connection) -> None:
    """Change a gallery for some seconds; send what it put there and how long each change took."""
    generator = np.random.default_rng(writer)
    state: State = {}
    took: list[float] = []
    number, end = 0, time.monotonic() + seconds
    with Gallery(url, network=network) as gallery:
        while time.monotonic() < end:
            number += 1
            change = _next(state, f"writer {writer}, person {number}", generator)
            began = time.monotonic()
            change.make(gallery, generator)
            took.append(time.monotonic() - began)
            state = change.applied(state)
    result.send((state, took))


def _next(state: State, new: str, generator: np.random.Generator) -> Change:
    if len(state) < 2 or (len(state) < MOST_PEOPLE and generator.random() < 0.6):
        return Change("enroll", new)
    name = str(generator.choice(sorted(state)))
    return Change("rename", name, f"{new} renamed") if generator.random() < 0.3 else Change("remove", name)


def read(url: str, network: Network, seconds: float, reader: int, result: Connection) -> None:
    """Search a gallery for some seconds; everybody must have all recordings each time."""
    generator = np.random.default_rng(reader)
    took: list[float] = []
    most, end = 0, time.monotonic() + seconds
    with Gallery(url, network=network) as gallery:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                gallery.identify([random_walk(generator, "probe")])
            except GalleryError as error:
                if "is empty" not in str(error):
                    raise
            found = gallery.vectors()
            took.append(time.monotonic() - began)
            counts = Counter(found.people.tolist())
            if set(counts.values()) - {CLIPS} or len(counts) != len(found.names):
                raise SystemExit(f"the reader saw people without all recordings: {counts}")
            most = max(most, len(counts))
    result.send(({"most people": most}, took))


# One thread: a forked process has none of its parent's threads.
@threads(1)
def run(url: str | None, seconds: float) -> dict[str, Any]:
    """Let two processes write and one read.

    Args:
        url: The gallery, which must be empty, or None for a file in a temporary folder.
        seconds: How long.

    Returns:
        What happened, as JSON holds it.

    Raises:
        SystemExit: Something was lost or seen half-written, or a process failed.
    """
    network = small_network()
    with tempfile.TemporaryDirectory() as folder:
        place = url or f"sqlite:///{folder}/people.db"
        refuse_people(place, network)
        (first, took), (second, took_too), (seen, searches) = _together(
            [write, write, read], (place, network, seconds), seconds
        )
        with Gallery(place, network=network) as gallery:
            found = {person.name: person.recordings for person in gallery.people()}
            sound = gallery.check()
    if found != {**first, **second} or sound != sum(found.values()):
        raise SystemExit(f"the writers left {first} and {second}; found {found}, {sound} recordings sound")
    return {
        "database": "sqlite" if place.startswith("sqlite") else "postgresql",
        "seconds": seconds,
        "changes": [_summary(took), _summary(took_too)],
        "searches": _summary(searches),
        "most_people_seen": seen["most people"],
        "people": len(found),
        "lost": 0,
        "seen_half_written": 0,
    }


def _together(
    programs: list[Callable[..., None]], arguments: tuple[Any, ...], seconds: float
) -> list[tuple[State, list[float]]]:
    context = multiprocessing.get_context("fork")
    started = []
    for number, program in enumerate(programs):
        listening, result = context.Pipe(duplex=False)
        process = context.Process(target=program, args=(*arguments, number, result))
        process.start()
        result.close()
        started.append((process, listening))
    results = []
    for process, listening in started:
        try:
            results.append(listening.recv())
        except EOFError:
            raise SystemExit(f"{programs[len(results)].__name__}: the process failed") from None
        process.join()
    return results


def _summary(took: list[float]) -> dict[str, float]:
    return {"count": len(took), "median_seconds": statistics.median(took), "longest_seconds": max(took)}


def main() -> None:
    """Run, print a summary, and write a JSON file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--url", help="an empty gallery; by default a file in a temporary folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options.url, options.seconds)
    for name, row in zip(("writer 1", "writer 2", "reader"), (*result["changes"], result["searches"])):
        median, longest = 1000 * row["median_seconds"], 1000 * row["longest_seconds"]
        print(f"{name}: {row['count']} times, median {median:.1f} ms, longest {longest:.0f} ms")
    print(f"{result['database']}: {result['people']} people left, nothing lost, nothing seen half-written")
    if options.json is not None:
        whole = {"machine": description(), "torch": torch.__version__, **result}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()
