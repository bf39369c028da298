"""A gallery that is drawn at random with the structure of a real one: people as clusters, views that they share."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.vector_file import VectorFile

# The size of casia-b's embeddings.
PARTS, CHANNELS = 73, 128
# People differ in so many directions, in which recordings of one person differ, too.
DIRECTIONS = 128
# Deviations of a recording from its person: what a view does to everybody, what lies in the directions, and noise.
VIEWS, OF_VIEW, OF_RECORDING, NOISE = 11, 0.7, 0.6, 0.3
# Every so manieth probe shows somebody whom the gallery does not know.
STRANGER = 8


class Made(NamedTuple):
    """A gallery in a file, and probes.

    Attributes:
        vectors: `[recordings, P, C]`, a memory map.
        people: The person of each, `[recordings]`.
        probe: `[n, P, C]`.
        fill_seconds: Seconds that the file took, or took when it was made, without the drawing; None if not known.
    """

    vectors: NDArray[np.float32]
    people: NDArray[np.int64]
    probe: NDArray[np.float32]
    fill_seconds: float | None


@functools.cache
def _views() -> NDArray[np.float32]:
    return OF_VIEW * np.random.default_rng(1).standard_normal((VIEWS, PARTS, CHANNELS), dtype=np.float32)


@functools.cache
def _directions() -> NDArray[np.float32]:
    drawn = np.random.default_rng(3).standard_normal((DIRECTIONS, PARTS * CHANNELS), dtype=np.float32)
    return drawn / np.float32(DIRECTIONS**0.5)


@functools.lru_cache(1)
def _walks(person: int, count: int) -> NDArray[np.float32]:
    """So many recordings of a person, of different views."""
    random = np.random.default_rng([2, person])
    places = random.standard_normal((count + 1, DIRECTIONS), dtype=np.float32)
    places[1:] = places[0] + np.float32(OF_RECORDING) * places[1:]
    walks: NDArray[np.float32] = random.standard_normal((count, PARTS, CHANNELS), dtype=np.float32)
    walks *= np.float32(NOISE)
    walks += (places[1:] @ _directions()).reshape(walks.shape)
    walks += _views()[(person + np.arange(count)) % VIEWS]
    return walks


def gallery(folder: Path, recordings: int, people: int, probes: int) -> Made:
    """Make the gallery, or find it in the folder where it was made before, and draw probes.

    Args:
        folder: Where its file is kept.
        recordings: How many recordings it has.
        people: How many people share them; each has as many as the others, or one less.
        probes: How many probes to draw.
    """
    each = -(-recordings // people)
    drawing = list[float]()

    def fetch(ids: list[int]) -> Iterator[tuple[int, bytes]]:
        for number in ids:
            start = time.perf_counter()
            person, walk = divmod(number, each)
            values = _walks(person, each + 1)[walk].tobytes()
            drawing.append(time.perf_counter() - start)
            yield number, values

    file = VectorFile(folder / f"vectors-{each}", PARTS, CHANNELS)
    start = time.perf_counter()
    vectors = file.synchronise(lambda: np.arange(recordings), fetch)
    if len(drawing) == recordings:
        (folder / "fill_seconds").write_text(str(time.perf_counter() - start - sum(drawing)))
    filled = folder / "fill_seconds"
    fill_seconds = float(filled.read_text()) if filled.exists() else None
    shown = np.linspace(0, (recordings - 1) // each, probes).astype(np.int64)
    shown[STRANGER - 1 :: STRANGER] += people
    probe = np.stack([_walks(int(person), each + 1)[each] for person in shown])
    return Made(vectors, np.arange(recordings) // each, probe, fill_seconds)
