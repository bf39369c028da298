"""The division of a data set for an open-set evaluation: who is unknown, and which walks are enrolled."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.sequences import Item
from hstl_fast.evaluation.division import listed

# The share of people who are unknown where nobody says who.
UNKNOWN = 0.5


class Division(NamedTuple):
    """The walks that are compared.

    Attributes:
        gallery: The numbers of the enrolled walks of known people, increasing.
        probe: The numbers of the probes, increasing.
        notes: Sentences about how they were chosen.
    """

    gallery: NDArray[np.intp]
    probe: NDArray[np.intp]
    notes: tuple[str, ...]


def draw_people(labels: Sequence[str], share: float, seed: int = 0) -> frozenset[str]:
    """Draw the people who are unknown.

    Args:
        labels: The person of each walk.
        share: The share of the people to draw, more than 0 and less than 1.
        seed: The same people and seed give the same draw.

    Returns:
        Their names, at least one and not all.

    Raises:
        ValueError: The share is out of range, or there are fewer than two people.
    """
    people = sorted(set(labels))
    if not 0 < share < 1:
        raise ValueError(f"the share of unknown people must be more than 0 and less than 1; got {share:g}")
    if len(people) < 2:
        raise ValueError(f"an open-set evaluation needs 2 people or more, known and unknown; got {listed(people)}")
    count = min(len(people) - 1, max(1, round(share * len(people))))
    drawn = np.random.default_rng(seed).choice(len(people), count, replace=False)
    return frozenset(people[i] for i in drawn)


def check_people(labels: Sequence[str], unknown: Sequence[str]) -> frozenset[str]:
    """Check the names of people who are to be unknown.

    Args:
        labels: The person of each walk.
        unknown: The names, in any composition of Unicode.

    Returns:
        The names of those who are in the data.

    Raises:
        ValueError: None of them is in the data, or nobody else is.
    """
    wanted, people = {unicodedata.normalize("NFC", name) for name in unknown}, set(labels)
    found = wanted & people
    if not found:
        raise ValueError(f"none of the people who are to be unknown is in the data: {listed(wanted)}")
    if found == people:
        raise ValueError(f"all {len(people)} people of the data are to be unknown: expected some to be enrolled")
    return frozenset(found)


def divide(items: Sequence[Item], unknown: frozenset[str]) -> Division:
    """Enroll the first half of everybody's recordings, and search the others.

    A recording with several views is one walk, so all of its views stay on one side. Unknown people are enrolled with
    nothing; their probes are chosen as those of known people are, so that both are seen alike.

    Args:
        items: The names of each walk.
        unknown: The people who are unknown.

    Returns:
        The division; a known person with one recording only is enrolled and not searched.
    """
    types: dict[str, set[str]] = {}
    for item in items:
        types.setdefault(item.label, set()).add(item.type)
    first = {label: set(sorted(known)[: max(1, len(known) // 2)]) for label, known in types.items()}
    gallery, probe = [], []
    for i, item in enumerate(items):
        is_first = item.type in first[item.label]
        if item.label in unknown:
            if not is_first or len(types[item.label]) == 1:
                probe.append(i)
        elif is_first:
            gallery.append(i)
        else:
            probe.append(i)
    notes = ["Of each person the first half of the recordings, by name, is enrolled, and the others are probes."]
    single = [label for label, known in types.items() if len(known) == 1 and label not in unknown]
    if single:
        have = "person has one recording and is" if len(single) == 1 else "people have one recording and are"
        notes.append(f"{len(single)} known {have} never searched: {listed(single)}.")
    return Division(np.array(gallery, np.intp), np.array(probe, np.intp), tuple(notes))
