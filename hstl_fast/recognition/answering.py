"""Answers about probes: names with distances, from the nearest recordings of a gallery."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.explaining import agreements, distances_of_parts
from hstl_fast.recognition.records import Answer, GalleryVectors, Match
from hstl_fast.recognition.search import Nearest, nearest_people

# Embeddings of one sequence in two batches differ by rounding: so much of the largest value at most.
ROUNDING = 1e-4
Search = Callable[[NDArray[np.float32], GalleryVectors, int], Nearest]


class Limit(NamedTuple):
    """The threshold of answers.

    Attributes:
        distance: The greatest distance at which a name is given, or None: always.
        false_accept_rate: The share of strangers who would be named, or None where it is not known.
    """

    distance: float | None
    false_accept_rate: float | None = None


class Found(NamedTuple):
    """The nearest people of a probe, nearest first.

    Attributes:
        rows: Their nearest recordings, rows of the gallery, int64 `[m]`.
        distances: The distances of these, float64 `[m]`.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def search(probes: NDArray[np.float32], gallery: GalleryVectors, count: int) -> Nearest:
    """Find the nearest people of every probe in this process alone, as `nearest_people` does."""
    return nearest_people(probes, gallery.vectors, gallery.people, count)


def find(probes: NDArray[np.float32], gallery: GalleryVectors, count: int, search: Search = search) -> list[Found]:
    """Find the nearest people of every probe.

    Args:
        probes: Embeddings `[n, P, C]`.
        gallery: The gallery, which is not empty.
        count: How many people to find at most.
        search: The search, alone or together with other processes.

    Returns:
        What was found for each probe, in the order of float64.
    """
    nearest = search(probes, gallery, count)
    there = [rows >= 0 for rows in nearest.rows]
    return [Found(rows[is_one], far[is_one]) for rows, far, is_one in zip(nearest.rows, nearest.distances, there)]


def answer(source: str, probe: NDArray[np.float32], found: Found, gallery: GalleryVectors, limit: Limit) -> Answer:
    """Answer who is in a probe.

    Args:
        source: Where the probe comes from.
        probe: Its embedding `[P, C]`.
        found: Its nearest people.
        gallery: The gallery.
        limit: The threshold.

    Returns:
        The answer.
    """
    numbers = gallery.recordings[found.rows].tolist()
    sources = [gallery.sources[row] for row in found.rows]
    people = [gallery.names[person] for person in gallery.people[found.rows]]
    distances, nearest = found.distances.tolist(), gallery.vectors[found.rows]
    parts = distances_of_parts(probe, nearest[:1])[0].astype(np.float32)
    matches = tuple(map(Match, people, numbers, sources, distances, agreements(probe, nearest)))
    margin = distances[1] - distances[0] if len(distances) > 1 else None
    is_known = limit.distance is None or distances[0] <= limit.distance
    return Answer(
        source,
        people[0] if is_known else None,
        matches,
        limit.distance,
        limit.false_accept_rate,
        margin,
        parts,
        numbers[0] if is_itself(probe, nearest[0]) else None,
    )


def is_itself(probe: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Tell whether two embeddings are of the same silhouettes.

    Args:
        probe: An embedding `[P, C]`.
        other: Another one by the same network.

    Returns:
        Whether they differ by no more than the rounding of two batches.
    """
    return bool(np.abs(other - probe).max() <= ROUNDING * np.abs(probe).max())
