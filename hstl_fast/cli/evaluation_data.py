"""Labelled embeddings of a test set for `hstl-fast evaluate`: from embedding files, or from data that are embedded."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from hstl_fast.cli.embedding import Settings, embed_sequences, load_network
from hstl_fast.cli.found import FoundOptions, finish_input, open_input
from hstl_fast.cli.output import SomeFailed
from hstl_fast.data.partitions import load_partition
from hstl_fast.data.sequences import Item, Partition
from hstl_fast.evaluation import Embeddings, check_comparable, is_embedding_file, load_embeddings
from hstl_fast.evaluation.division import (
    PRESET,
    check_sequence_names,
    choose_test_set,
    held_out,
    listed,
    mismatches,
    with_probes,
)
from hstl_fast.evaluation.protocols import Request
from hstl_fast.silhouettes.left_out import LeftOut


class Chosen(NamedTuple):
    """The embeddings of a test set, and how it was chosen.

    Attributes:
        embeddings: The embeddings.
        items: What is known of each sequence; labels are in Unicode's form NFC.
        request: The options of the evaluation, with the names of probes where the protocol takes a list of them.
        notes: Sentences about what was left out or is absent.
    """

    embeddings: Embeddings
    items: list[Item]
    request: Request
    notes: list[str]


def load_test_set(
    inputs: Sequence[Path],
    protocol: str,
    request: Request,
    found: FoundOptions,
    settings: Settings,
    failures: list[str],
) -> Chosen:
    """Load or compute the embeddings of the test set.

    Args:
        inputs: Embedding files, or data of any layout.
        protocol: The protocol, which chooses the network where the options do not.
        request: The options of the evaluation; without probes, those of the partition are taken.
        found: How data are opened, and the partition.
        settings: The network for data.
        failures: Gets a sentence for each sequence that could not be embedded.

    Returns:
        The test set.

    Raises:
        click.UsageError: Options for data are given with embedding files, both kinds of input are, or the protocol
            needs a list of probes and there is none.
        ValueError: Files cannot be read or belong to different networks, a name is not `label/type/view`, or the data
            lack what the protocol needs; this is said before anything is embedded.
        SomeFailed: There is no embedding at all.
    """
    files = [path for path in inputs if is_embedding_file(path)]
    if files and len(files) < len(inputs):
        other = next(path for path in inputs if path not in files)
        raise click.UsageError(f"expected embedding files or data, not both; got {files[0]} and {other}")
    if files:
        refuse_options_of_data(files[0], found, settings)
        return _of_files(files, protocol, request, found)
    return _of_data(inputs, protocol, request, found, settings, failures)


def refuse_options_of_data(file: Path, found: FoundOptions, settings: Settings) -> None:
    """Refuse options for data that are to be embedded beside an embedding file."""
    given = {**dataclasses.asdict(settings), **dataclasses.asdict(dataclasses.replace(found, partition=None))}
    usual = {**dict.fromkeys(dataclasses.asdict(settings)), **dataclasses.asdict(FoundOptions())}
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value != usual[name]]
    if names:
        raise click.UsageError(f"{', '.join(names)}: expected data to be embedded; {file} holds embeddings already")


def _of_files(files: Sequence[Path], protocol: str, request: Request, found: FoundOptions) -> Chosen:
    partition = None if found.partition is None else load_partition(found.partition)
    request = named_probes(protocol, request, partition)
    embeddings = join_files(files)
    items = _items(embeddings.names)
    chosen, notes = choose_test_set(items, protocol, partition)
    if len(chosen) < len(items):
        embeddings = _rows(embeddings, chosen)
    absent = [] if partition is None else mismatches(items, protocol, partition)
    return Chosen(embeddings, [items[i] for i in chosen], request, [*notes, *absent])


def _of_data(
    inputs: Sequence[Path],
    protocol: str,
    request: Request,
    found: FoundOptions,
    settings: Settings,
    failures: list[str],
) -> Chosen:
    if settings.checkpoint is None and settings.preset is None:
        settings = dataclasses.replace(settings, preset=PRESET[protocol])
    every = open_input(inputs, found)
    chosen = held_out(every, protocol, named_probes(protocol, request, every.partition))
    left_out: list[LeftOut] = []
    embeddings, failed = embed_sequences(load_network(settings), chosen.sequences, settings, left_out)
    failures += failed
    finish_input(every, left_out, found)
    if embeddings is None:
        raise SomeFailed(failures)
    by_name = {item.name: item for item in chosen.sequences.items}
    return Chosen(embeddings, [by_name[name] for name in embeddings.names], chosen.request, list(chosen.notes))


def named_probes(protocol: str, request: Request, partition: Partition | None) -> Request:
    """Take the names of probes from the partition, where the protocol needs them and none are given.

    Raises:
        click.UsageError: The protocol needs a list of probes, and there is none.
    """
    try:
        return with_probes(protocol, request, partition)
    except ValueError as error:
        message = f"{protocol} needs the list of its probes: --probes FILE, or a --partition with PROBE_SET"
        raise click.UsageError(message) from error


def join_files(files: Sequence[Path]) -> Embeddings:
    """Join the embeddings of several files of one network."""
    loaded = [load_embeddings(path) for path in files]
    for path, each in zip(files[1:], loaded[1:], strict=True):
        try:
            check_comparable(loaded[0], each)
        except ValueError as error:
            raise ValueError(f"{files[0]} and {path} cannot be evaluated together: {error}") from error
    names = tuple(name for each in loaded for name in each.names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"expected every sequence once; these are there more than once: {listed(twice)}")
    if len(loaded) == 1:
        return loaded[0]
    return dataclasses.replace(
        loaded[0],
        vectors=np.concatenate([each.vectors for each in loaded]),
        names=names,
        lengths=np.concatenate([each.lengths for each in loaded]),
        fps=None,
    )


def _rows(embeddings: Embeddings, chosen: Sequence[int]) -> Embeddings:
    names = tuple(embeddings.names[i] for i in chosen)
    vectors, lengths = embeddings.vectors[list(chosen)], embeddings.lengths[list(chosen)]
    return dataclasses.replace(embeddings, vectors=vectors, names=names, lengths=lengths, fps=None)


def _items(names: Sequence[str]) -> list[Item]:
    check_sequence_names(names)
    parts = [name.split("/") for name in names]
    return [Item(composed(part[0]), part[1], part[2], name) for part, name in zip(parts, names, strict=True)]


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
    return _names(path, "names of probes", "PROBE_SET")


def read_people(path: Path) -> tuple[str, ...]:
    """Read the names of people.

    Args:
        path: A JSON list, or a text with one name a line.

    Returns:
        The names.

    Raises:
        ValueError: The file holds no names.
        OSError: The file cannot be read.
    """
    return _names(path, "names of people")


def _names(path: Path, kind: str, key: str | None = None) -> tuple[str, ...]:
    content = path.read_bytes()
    document = _json(content)
    if isinstance(document, dict):
        document = None if key is None else document.get(key)
    elif document is None:
        try:
            document = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            document = []
    if not isinstance(document, list) or not document or not all(isinstance(name, str) for name in document):
        place = "" if key is None else f"in {key}, "
        raise ValueError(f"{path}: expected {kind}, {place}as a JSON list, or one a line; got none")
    return tuple(composed(name) for name in document)


def _json(content: bytes) -> Any:
    """The value of a JSON text, None where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def composed(name: str) -> str:
    """Compose the letters of a name as Unicode's form NFC has them."""
    return unicodedata.normalize("NFC", name)
