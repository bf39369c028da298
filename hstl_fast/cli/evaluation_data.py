"""Labelled embeddings for `hstl-fast evaluate`: from embedding files or data, cut down to the test set."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from hstl_fast.cli.embedding import Settings, embed_inputs, load_network
from hstl_fast.cli.output import SomeFailed
from hstl_fast.data.sequences import Partition
from hstl_fast.evaluation import Embeddings, check_comparable, is_embedding_file, load_embeddings
from hstl_fast.evaluation.protocols import published_test_set

# The network that belongs to each protocol's data, where neither an option nor a checkpoint names one.
PRESET = {"casia-b": "casia-b", "oumvlp": "oumvlp", "gait3d": "gait3d", "grew-validation": "grew", "grew": "grew"}
_GREW_PROBE = "probe"
_LISTED = 5


class Labelled(NamedTuple):
    """Embeddings with the names that their sequences' names consist of.

    Attributes:
        embeddings: The embeddings.
        labels: The person of each sequence, in Unicode's form NFC.
        types: The recording of each sequence.
        views: The camera of each sequence.
    """

    embeddings: Embeddings
    labels: list[str]
    types: list[str]
    views: list[str]

    def subset(self, chosen: Sequence[int]) -> Labelled:
        """Return some of the sequences, by their numbers in increasing order; all of them are not copied."""
        if len(chosen) == len(self.labels):
            return self
        known = self.embeddings
        names = tuple(known.names[i] for i in chosen)
        some = replace(known, vectors=known.vectors[chosen], names=names, lengths=known.lengths[chosen])
        return Labelled(some, *([each[i] for i in chosen] for each in (self.labels, self.types, self.views)))


def labelled_embeddings(inputs: Sequence[Path], protocol: str, settings: Settings, failures: list[str]) -> Labelled:
    """Load or compute the embeddings of all inputs.

    Args:
        inputs: Embedding files, or files and folders of silhouettes.
        protocol: The protocol, which chooses the network where the options do not.
        settings: The network for silhouettes.
        failures: Gets a sentence for each sequence that could not be embedded.

    Returns:
        The embeddings.

    Raises:
        click.UsageError: Options of a network are given with embedding files, or both kinds of input.
        ValueError: Files cannot be read or belong to different networks, or a name is not `label/type/view`.
        SomeFailed: There is no embedding at all.
    """
    files = [path for path in inputs if is_embedding_file(path)]
    if files and len(files) < len(inputs):
        other = next(path for path in inputs if path not in files)
        raise click.UsageError(f"expected embedding files or silhouettes, not both; got {files[0]} and {other}")
    if not files:
        return _labelled(_embed(inputs, protocol, settings, failures))
    if settings.checkpoint or settings.seed is not None or settings.preset or settings.backend:
        raise click.UsageError(
            f"--checkpoint, --preset, --seed and --backend are for silhouettes; {files[0]} holds embeddings already"
        )
    return _labelled(_join(files))


def _embed(inputs: Sequence[Path], protocol: str, settings: Settings, failures: list[str]) -> Embeddings:
    if settings.checkpoint is None and settings.preset is None:
        settings = replace(settings, preset=PRESET[protocol])
    embeddings, failed = embed_inputs(load_network(settings), inputs, settings)
    failures += failed
    if embeddings is None:
        raise SomeFailed(failures)
    return embeddings


def _join(files: Sequence[Path]) -> Embeddings:
    """The embeddings of several files of one network as one."""
    loaded = [load_embeddings(path) for path in files]
    for path, each in zip(files[1:], loaded[1:], strict=True):
        try:
            check_comparable(loaded[0], each)
        except ValueError as error:
            raise ValueError(f"{files[0]} and {path} cannot be evaluated together: {error}") from error
    names = tuple(name for each in loaded for name in each.names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"expected every sequence once; got {listed(twice)} more than once")
    vectors = np.concatenate([each.vectors for each in loaded])
    return replace(loaded[0], vectors=vectors, names=names, lengths=np.concatenate([e.lengths for e in loaded]))


def _labelled(embeddings: Embeddings) -> Labelled:
    parts = [name.split("/") for name in embeddings.names]
    short = [name for name, part in zip(embeddings.names, parts, strict=True) if len(part) < 3 or "" in part[:3]]
    if short:
        raise ValueError(
            "expected sequences named label/type/view, such as 075/nm-01/090; "
            f"got {listed(short)} among {len(parts)} sequences"
        )
    columns = [[part[i] for part in parts] for i in range(3)]
    return Labelled(embeddings, [_composed(label) for label in columns[0]], columns[1], columns[2])


def choose_test_set(labels: Sequence[str], protocol: str, partition: Partition | None) -> tuple[list[int], list[str]]:
    """Choose the sequences of the test set.

    Args:
        labels: The person of each sequence, in Unicode's form NFC.
        protocol: The protocol.
        partition: The division of the data set, or None for the published rule where there is one.

    Returns:
        The numbers of the sequences of the test set, and sentences about what was left out or is absent.

    Raises:
        ValueError: The partition names nobody who is in the data.
    """
    if partition is None:
        by_rule = published_test_set(np.array(labels)) if protocol == "casia-b" else None
        if by_rule is None:
            return list(range(len(labels))), []
        chosen = np.flatnonzero(by_rule).tolist()
        return chosen, [f"Test set by the published rule, 075 to 124: {_left_out(labels, chosen)}."]
    test = {_composed(label) for label in partition.test}
    # The probes of GREW's test set have no names, and some partition files do not list what stands for one.
    wanted = test | ({_GREW_PROBE} if protocol == "grew" else set())
    chosen = [i for i, label in enumerate(labels) if label in wanted]
    if not chosen:
        raise ValueError(
            f"none of the {len(test)} people of the partition's TEST_SET is in the data: "
            f"expected {listed(test)}; got {listed(labels)}"
        )
    notes = []
    if len(chosen) < len(labels):
        notes.append(f"Test set by the partition: {_left_out(labels, chosen)}.")
    unnamed = set(labels) - wanted - {_composed(label) for label in partition.train}
    if unnamed:
        notes.append(f"{len(unnamed)} people in the data are in neither set of the partition: {listed(unnamed)}.")
    absent = test - set(labels)
    if absent:
        notes.append(
            f"{len(absent)} of {len(test)} people of the partition's TEST_SET are not in the data: {listed(absent)}."
        )
    return chosen, notes


def read_partition(path: Path) -> Partition:
    """Read a partition file as OpenGait writes it.

    Args:
        path: A JSON file with the lists `TRAIN_SET`, `TEST_SET` and, optionally, `PROBE_SET`.

    Returns:
        The division.

    Raises:
        ValueError: The file is no such JSON.
        OSError: The file cannot be read.
    """
    document = _json(path.read_bytes())
    if not isinstance(document, dict) or "TEST_SET" not in document:
        raise ValueError(f"{path}: expected a partition, a JSON object with the list TEST_SET")
    sets = {key: document.get(key, []) for key in ("TRAIN_SET", "TEST_SET", "PROBE_SET")}
    return Partition(*(_names(path, key, value) for key, value in sets.items()))


def read_probes(path: Path) -> tuple[str, ...]:
    """Read the names of probes.

    Args:
        path: A partition file with `PROBE_SET`, a JSON list, or a text with one name a line.

    Returns:
        The names.

    Raises:
        ValueError: The file holds no names.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    document = _json(content)
    if isinstance(document, dict):
        document = document.get("PROBE_SET")
    elif document is None:
        try:
            document = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            document = []
    names = _names(path, "PROBE_SET", document)
    if not names:
        raise ValueError(f"{path}: expected names of probes, in PROBE_SET, as a JSON list, or one a line; got none")
    return names


def listed(names: Iterable[str]) -> str:
    """Join the first few names, and count the others."""
    known = sorted(set(names))
    return ", ".join(known[:_LISTED]) + (f" and {len(known) - _LISTED} more" if len(known) > _LISTED else "")


def _left_out(labels: Sequence[str], chosen: Sequence[int]) -> str:
    sequences, people = len(labels) - len(chosen), len(set(labels)) - len({labels[i] for i in chosen})
    return f"{len(chosen)} sequences are evaluated, {sequences} of {people} other people are left out"


def _json(content: bytes) -> Any:
    """The value of a JSON text, None where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{path}: expected {key} to be a list of names")
    return tuple(_composed(name) for name in value)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
