"""Divisions of a data set into people for training and people for the test: partition files, and published rules."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hstl_fast.data.errors import DataError
from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.silhouettes.left_out import LeftOut

PARTS = ("train", "test")
KEYS = ("TRAIN_SET", "TEST_SET", "PROBE_SET", "GALLERY_SET")
ABSENT_PERSON = "person of the partition, not in the data"
UNNAMED_PERSON = "person in the data, not in the partition"
ABSENT_SEQUENCE = "probe or gallery of the partition, not in the data"
PARTITION_REASONS = (ABSENT_PERSON, UNNAMED_PERSON, ABSENT_SEQUENCE)
_LONGEST_FILE = 64 * 2**20
_CASIA_B_TRAINING, _CASIA_B_PEOPLE = 74, 124
_OUMVLP_TRAINING, _OUMVLP_PEOPLE = 10305, 10307


def load_partition(path: str | os.PathLike[str]) -> Partition:
    """Read a partition file.

    Args:
        path: A JSON file with the lists `TRAIN_SET` and `TEST_SET` of people, and optionally `PROBE_SET` and
            `GALLERY_SET` of sequences written `label-type-view`; a set may be missing, but not both of the first two.

    Returns:
        The division; its labels are in Unicode's composed form (NFC), as those of data sets are.

    Raises:
        DataError: The file is no such JSON, names something twice, or a person in both sets.
        OSError: The file cannot be read.
    """
    source = Path(path)
    sets = _sets(source)
    train, test = (_names(source, sets, key) for key in KEYS[:2])
    if not train and not test:
        raise DataError(f"{source}: expected people in TRAIN_SET or TEST_SET, got none")
    both = sorted(set(train) & set(test))
    if both:
        raise DataError(
            f"{source}: expected every person in one of TRAIN_SET and TEST_SET, got {_some(both)} in both sets"
        )
    return Partition(train, test, *(_names(source, sets, key) for key in KEYS[2:]))


def published_partition(protocol: str, labels: Iterable[str]) -> Partition:
    """Divide people as the published protocol of a data set does, where that is a rule.

    CASIA-B: 001 to 074 and 075 to 124. OUMVLP: the odd numbers up to 10305, and the even ones with 10307. GREW: labels
    that end in `train`, and all others but distractors. Gait3D and SUSTech1K are divided by lists that come with them.

    Args:
        protocol: `casia-b`, `oumvlp`, `grew` or `grew-validation`.
        labels: The people to divide; repetitions are fine.

    Returns:
        The division of those labels that the rule names, each part in the order of the labels.

    Raises:
        DataError: There is no rule for the protocol, or none of the labels is one that the rule names.
    """
    rules = {"casia-b": _casia_b, "oumvlp": _oumvlp, "grew": _grew, "grew-validation": _grew}
    rule = rules.get(protocol)
    if rule is None:
        raise DataError(
            f"{protocol} is divided by a list, not by a rule: expected a partition file (--partition) with TRAIN_SET "
            "and TEST_SET, got none"
        )
    people = sorted(set(labels))
    parts = {label: rule(label) for label in people}
    train, test = (tuple(label for label in people if parts[label] == part) for part in PARTS)
    if not train and not test:
        raise DataError(f"{protocol}: expected labels as its publishers name people, got {_some(people) or 'none'}")
    return Partition(train, test)


def part_of(sequences: Sequences, part: str) -> Sequences:
    """Choose the sequences of the people of one part of the partition.

    Args:
        sequences: A data set with a partition.
        part: `train` or `test`.

    Returns:
        A data set of these sequences, which keeps the partition.

    Raises:
        DataError: The data set has no partition, or the part has no sequences in it.
        ValueError: Another part.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    if sequences.partition is None:
        raise DataError(f"{sequences.source}: expected a partition (--partition) to choose the {part} set, got none")
    people = set(getattr(sequences.partition, part))
    indices = [i for i, label in enumerate(sequences.labels) if label in people]
    if not indices:
        raise DataError(
            f"{sequences.source}: expected sequences of the {len(people)} people of the {part} set, got none; "
            f"the data has {_some(sorted(set(sequences.labels)))}"
        )
    return sequences.subset(indices)


def sequence_key(item: Item) -> str:
    """Write the name of a sequence as partition files do.

    Args:
        item: The sequence.

    Returns:
        Its label, type and view with `-` between.
    """
    return f"{item.label}-{item.type}-{item.view}"


def compare(items: Iterable[Item], partition: Partition) -> list[LeftOut]:
    """List what a partition names and the data does not have, and the other way round.

    Args:
        items: The sequences of the data set.
        partition: Its division.

    Returns:
        One entry for each person and each probe or gallery sequence that is on one side only.
    """
    items = list(items)
    counts: dict[str, int] = {}
    for item in items:
        counts[item.label] = counts.get(item.label, 0) + 1
    named = {label: part for part in PARTS for label in getattr(partition, part)}
    found = [
        LeftOut(label, ABSENT_PERSON, f"in the {part} set") for label, part in named.items() if label not in counts
    ]
    found += [
        LeftOut(label, UNNAMED_PERSON, f"{count} sequences, in no set")
        for label, count in counts.items()
        if label not in named
    ]
    if partition.probes or partition.gallery:
        there = {sequence_key(item) for item in items}
        wanted = dict.fromkeys([*partition.probes, *partition.gallery])
        found += [LeftOut(name, ABSENT_SEQUENCE) for name in wanted if name not in there]
    return found


def _sets(source: Path) -> dict[str, Any]:
    if source.stat().st_size > _LONGEST_FILE:
        raise DataError(f"{source}: expected a partition file of at most {_LONGEST_FILE} bytes, got a larger one")
    try:
        sets = json.loads(source.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: expected a partition as JSON, got a file that is none ({error})") from error
    if not isinstance(sets, dict) or not set(sets) & set(KEYS[:2]):
        got = f"an object with {_some(sorted(sets)) or 'nothing'}" if isinstance(sets, dict) else type(sets).__name__
        raise DataError(f"{source}: expected a JSON object with TRAIN_SET and TEST_SET, got {got}")
    return sets


def _names(source: Path, sets: dict[str, Any], key: str) -> tuple[str, ...]:
    names = sets.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        wrong = next((name for name in names if not isinstance(name, str) or not name), names) if names else names
        kind = f"{wrong!r} in it" if isinstance(names, list) else f"a {type(names).__name__}"
        raise DataError(f"{source}: expected {key} to be a list of names in quotes, got {kind}")
    normal = [unicodedata.normalize("NFC", name) for name in names]
    repeated = sorted({name for name in normal if normal.count(name) > 1}) if len(set(normal)) < len(normal) else []
    if repeated:
        raise DataError(f"{source}: expected every name once in {key}, got {_some(repeated)} more than once")
    return tuple(normal)


def _casia_b(label: str) -> str | None:
    number = int(label) if label.isdecimal() else 0
    if not 1 <= number <= _CASIA_B_PEOPLE:
        return None
    return "train" if number <= _CASIA_B_TRAINING else "test"


def _oumvlp(label: str) -> str | None:
    number = int(label) if label.isdecimal() else 0
    if not 1 <= number <= _OUMVLP_PEOPLE:
        return None
    return "train" if number % 2 and number <= _OUMVLP_TRAINING else "test"


def _grew(label: str) -> str | None:
    if label.endswith("distractor"):
        return None
    return "train" if label.endswith("train") else "test"


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    first = ", ".join(str(name) for name in names[:5])
    return f"{first} and {len(names) - 5} more" if len(names) > 5 else first
