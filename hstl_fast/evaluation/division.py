"""The test set of a data set, chosen by its partition or by the published rule, before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hstl_fast.data.errors import DataError
from hstl_fast.data.partitions import published_partition, sequence_key
from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.evaluation.protocols import TAKERS, Request, select_sequences
from hstl_fast.evaluation.published import TEST_PEOPLE

# The network that belongs to each protocol's data, where neither an option nor a checkpoint names one.
PRESET = {"casia-b": "casia-b", "oumvlp": "oumvlp", "gait3d": "gait3d", "grew-validation": "grew", "grew": "grew"}
# The protocol that evaluates a training of each network; the test set of `grew` has no public answers.
PROTOCOL_OF = {"casia-b": "casia-b", "oumvlp": "oumvlp", "gait3d": "gait3d", "grew": "grew-validation"}
_GREW_PROBE = "probe"
_LISTED = 5


class HeldOut(NamedTuple):
    """The test set of a data set.

    Attributes:
        sequences: Its sequences.
        request: The options of the evaluation, with the names of probes where the protocol takes a list of them.
        notes: Sentences about what is left out or absent.
    """

    sequences: Sequences
    request: Request
    notes: tuple[str, ...]


def held_out(every: Sequences, protocol: str, request: Request) -> HeldOut:
    """Choose the test set of a data set by its partition, or else by the published rule where there is one.

    Args:
        every: The data set.
        protocol: The protocol.
        request: The options of the evaluation.

    Returns:
        The test set, which has what the protocol needs.

    Raises:
        ValueError: Sequences are not named `label/type/view`, the partition names nobody who is in the data, or the
            data lack what the protocol needs.
    """
    check_sequence_names(every.names)
    request = with_probes(protocol, request, every.partition)
    chosen, notes = choose_test_set(every.items, protocol, every.partition)
    sequences = every.subset(chosen)
    select_sequences(protocol, sequences.labels, sequences.types, sequences.views, request)
    if every.partition is not None:
        notes += mismatches(every.items, protocol, every.partition)
    return HeldOut(sequences, request, tuple(notes))


def with_probes(protocol: str, request: Request, partition: Partition | None) -> Request:
    """Take the names of probes from the partition, where none are given and the protocol takes a list.

    Args:
        protocol: The protocol.
        request: The options of the evaluation.
        partition: The division of the data set, or None.

    Returns:
        The options with the probes.

    Raises:
        ValueError: The protocol takes a list of probes, and there is none.
    """
    if request.probes is not None or protocol not in TAKERS["probes"]:
        return request
    if partition is None or not partition.probes:
        raise ValueError(f"{protocol} needs the list of its probes: expected a partition with PROBE_SET, got none")
    return replace(request, probes=partition.probes)


def check_sequence_names(names: Sequence[str]) -> None:
    """Check that sequences are named by person, recording and camera.

    Args:
        names: Their names.

    Raises:
        ValueError: A name is not `label/type/view`.
    """
    short = [name for name in names if len(parts := name.split("/")) < 3 or "" in parts[:3]]
    if short:
        raise ValueError(
            "expected sequences named label/type/view, such as 075/nm-01/090; "
            f"{len(short)} of {len(names)} have other names: {listed(short)}"
        )


def choose_test_set(items: Sequence[Item], protocol: str, partition: Partition | None) -> tuple[list[int], list[str]]:
    """Choose the sequences of the test set.

    Args:
        items: What is known of each sequence.
        protocol: The protocol.
        partition: The division of the data set, or None for the published rule where there is one.

    Returns:
        The numbers of the sequences of the test set, increasing, and a sentence if others were left out.

    Raises:
        ValueError: The partition names nobody who is in the data.
    """
    rule = "the partition"
    if partition is None:
        partition, rule = _published(protocol, {item.label for item in items}), "the published rule"
    if partition is None:
        return list(range(len(items))), []
    wanted = _wanted(protocol, partition)
    chosen = [i for i, item in enumerate(items) if item.label in wanted]
    if partition.gallery:
        named = {*partition.gallery, *partition.probes}
        chosen = [i for i in chosen if sequence_key(items[i]) in named]
    if not chosen and not partition.test:
        raise ValueError("expected people in the partition's TEST_SET to evaluate, got none")
    if not chosen:
        raise ValueError(
            f"none of the {len(partition.test)} people of the partition's TEST_SET is in the data: "
            f"expected {listed(partition.test)}; got {listed(item.label for item in items)}"
        )
    if len(chosen) == len(items):
        return chosen, []
    people = {items[i].label for i in chosen}
    others = {item.label for item in items} - people
    return chosen, [
        f"Test set by {rule}: {len(chosen)} sequences of {len(people)} people are evaluated; left out are "
        f"{len(items) - len(chosen)} sequences, among them all of {len(others)} people."
    ]


def _wanted(protocol: str, partition: Partition) -> set[str]:
    # The probes of GREW's test set have no names, and some partition files do not list what stands for one.
    return {*partition.test, *([_GREW_PROBE] if protocol == "grew" else [])}


def _published(protocol: str, people: set[str]) -> Partition | None:
    """The published division, where the protocol has a rule and people for training are among the data.

    Small data sets may number their people as OUMVLP does: for these the rule is used only where there are more people
    than its test set has.
    """
    if protocol not in ("casia-b", "oumvlp") or (protocol == "oumvlp" and len(people) <= TEST_PEOPLE[protocol]):
        return None
    try:
        partition = published_partition(protocol, people)
    except DataError:
        return None
    everybody = len(partition.train) + len(partition.test) == len(people)
    return partition if everybody and partition.train and partition.test else None


def mismatches(items: Sequence[Item], protocol: str, partition: Partition) -> list[str]:
    """Say which people only the partition or only the data have.

    Args:
        items: What is known of each sequence.
        protocol: The protocol.
        partition: The division of the data set.

    Returns:
        Sentences; none where both have the same.
    """
    people = {item.label for item in items}
    unnamed = people - _wanted(protocol, partition) - set(partition.train)
    absent = set(partition.test) - people
    notes = []
    if unnamed:
        notes.append(f"{len(unnamed)} people in the data are in neither set of the partition: {listed(unnamed)}.")
    if absent:
        notes.append(
            f"{len(absent)} of {len(partition.test)} people of the partition's TEST_SET are not in the data: "
            f"{listed(absent)}."
        )
    return notes


def listed(names: Iterable[str]) -> str:
    """Join the first few names, and count the others.

    Args:
        names: The names.

    Returns:
        A part of a sentence.
    """
    known = sorted(set(names))
    return ", ".join(known[:_LISTED]) + (f" and {len(known) - _LISTED} more" if len(known) > _LISTED else "")
