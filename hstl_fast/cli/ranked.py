"""Ranked lists of a gallery for `hstl-fast identify`, which leave out the probe itself, and when rank-1 is printed."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation import Embeddings, identity, rates
from hstl_fast.evaluation.search import top
from hstl_fast.progress import Progress
from hstl_fast.recognition.answering import is_itself


@dataclass(frozen=True)
class Ranked:
    """Ranked lists of the gallery.

    Attributes:
        lists: For every probe pairs of gallery number and distance, the nearest first.
        in_gallery: For every probe that is in the gallery itself, by its number, the numbers of its gallery sequences.
        same_name: The numbers of the probes whose whole name, `person/...`, is that of a gallery sequence with another
            embedding.
    """

    lists: list[list[tuple[int, float]]]
    in_gallery: dict[int, list[int]]
    same_name: list[int]


def rank(gallery: Embeddings, probe: Embeddings, count: int, metric: str, progress: Progress | None = None) -> Ranked:
    """Rank the gallery for every probe, leaving out the probe itself.

    Args:
        gallery: The gallery.
        probe: The probes.
        count: The length of each list.
        metric: One of `METRICS`.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        The lists.
    """
    more = 1
    while True:
        indices, distances = top(probe.vectors, gallery.vectors, count + more, metric, progress)
        in_gallery = _themselves(gallery.vectors, probe.vectors, indices)
        most = max((len(found) for found in in_gallery.values()), default=0)
        if most <= more or count + more >= len(gallery.names):
            break
        more = 2 * most
    lists = [
        [pair for pair in zip(row.tolist(), far.tolist(), strict=True) if pair[0] not in in_gallery.get(i, ())][:count]
        for i, (row, far) in enumerate(zip(indices, distances, strict=True))
    ]
    whole_names = {name for name in gallery.names if "/" in name}
    same_name = [i for i, name in enumerate(probe.names) if name in whole_names and i not in in_gallery]
    return Ranked(lists, in_gallery, same_name)


def _themselves(
    gallery: NDArray[np.float32], probe: NDArray[np.float32], indices: NDArray[np.intp]
) -> dict[int, list[int]]:
    """The gallery sequences that are a probe itself: they stand first in its ranking."""
    found: dict[int, list[int]] = {}
    for i, row in enumerate(indices.tolist()):
        for index in row:
            if not is_itself(probe[i], gallery[index]):
                break
            found.setdefault(i, []).append(index)
    return found


def rank_one(ranked: Ranked, gallery_names: Sequence[str], probe_names: Sequence[str]) -> tuple[int, int]:
    """Count the probes that have a sequence of their own person nearest.

    Args:
        ranked: The ranked lists.
        gallery_names: Names of the gallery.
        probe_names: Names of the probes.

    Returns:
        How many are right, and how many were scored: those whose person has another sequence in the gallery.
    """
    people = [_person(name) for name in gallery_names]
    sequences = Counter(people)
    scored = hits = 0
    for i, name in enumerate(probe_names):
        person = _person(name)
        own = sum(people[index] == person for index in ranked.in_gallery.get(i, ()))
        if sequences[person] > own:
            scored += 1
            hits += people[ranked.lists[i][0][0]] == person
    return hits, scored


def why_no_rank_one(gallery_names: Sequence[str], probe_names: Sequence[str], scored: int) -> str | None:
    """Say why rank-1 would mean nothing.

    Args:
        gallery_names: Names of the gallery.
        probe_names: Names of the probes.
        scored: How many probes have their person in the gallery.

    Returns:
        The reason, or None where rank-1 means something.
    """
    tracks = [name for name in (*gallery_names, *probe_names) if is_track(name)]
    if tracks:
        return f"the names of {len(tracks)} sequences are those of tracks, such as {tracks[0]}, and tell no person"
    if not scored:
        return "no probe has its person in the gallery with another sequence"
    people = {_person(name) for name in gallery_names}
    if len(people) == 1:
        return (
            f"the whole gallery, {len(gallery_names)} sequences, is one person, {people.pop()}; a folder too high or "
            "too low in the data set gives that"
        )
    return None


def is_track(name: str) -> bool:
    """Tell whether a sequence has the name of a track of a video: `<video>-track01`, alone or in a folder `<video>`."""
    person, last = identity(name), name.rsplit("/", 1)[-1]
    return bool(re.fullmatch(r"(.*-)?track\d+", person) or re.fullmatch(rf"({re.escape(person)}-)?track\d+", last))


def count_people(names: Sequence[str]) -> dict[str, int]:
    """Count the people and sequences of one side."""
    return {"people": len({_person(name) for name in names}), "sequences": len(names)}


def compared_rates(gallery: Embeddings, probe: Embeddings) -> str | None:
    """Write a sentence about frame rates of gallery and probes that differ, where both are known."""
    unknown = np.zeros(0)
    return rates.compared_rates(*(unknown if side.fps is None else side.fps for side in (gallery, probe)))


def _person(name: str) -> str:
    """The person of a name; the same letters may be composed in two ways."""
    return unicodedata.normalize("NFC", identity(name))
