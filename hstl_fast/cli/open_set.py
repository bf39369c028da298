"""The open-set mode of `hstl-fast evaluate`: its options, its data, and its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from hstl_fast.cli.embedding import Settings, embed_sequences, load_network
from hstl_fast.cli.evaluation_data import composed, join_files, named_probes, read_people, refuse_options_of_data
from hstl_fast.cli.found import FoundOptions, finish_input, open_input
from hstl_fast.cli.options import choice, several
from hstl_fast.cli.output import SomeFailed, progress_bar
from hstl_fast.data.partitions import load_partition
from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.evaluation import is_embedding_file, load_embeddings
from hstl_fast.evaluation.division import PRESET, check_sequence_names, choose_test_set, listed, mismatches
from hstl_fast.evaluation.open_set import OpenSet, check_labels, open_set
from hstl_fast.evaluation.open_set_division import UNKNOWN, Division, check_people, divide, draw_people
from hstl_fast.evaluation.protocols import Request, select_sequences
from hstl_fast.network import Network
from hstl_fast.silhouettes.energy import gait_energy_image
from hstl_fast.silhouettes.left_out import LeftOut

_INPUT = click.Path(exists=True, path_type=Path)
_ENERGY = "gait-energy image"


@dataclass(frozen=True)
class OpenSetOptions:
    """The values of the options of `open_set_options`."""

    open_set: bool = False
    gallery: tuple[Path, ...] = ()
    unknown: str | None = None
    beside: tuple[Path, ...] = ()
    baseline: str | None = None

    @classmethod
    def take(cls, options: dict[str, Any]) -> OpenSetOptions:
        """Take the values out of the keyword arguments that a command gets, and leave the others.

        Raises:
            click.UsageError: An option of the open-set mode is given without it.
        """
        found = cls(**{field.name: options.pop(field.name) for field in dataclasses.fields(cls)})
        given = [f"--{name}" for name, value in vars(found).items() if name != "open_set" and value]
        if given and not found.open_set:
            raise click.UsageError(f"expected --open-set beside {', '.join(given)}")
        return found


def open_set_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of the open-set mode, which it gets as the fields of `OpenSetOptions`."""
    return several(
        click.option("--open-set", is_flag=True, help="Some people are unknown: thresholds, ROC, DET, error rates."),
        click.option(
            "--gallery", metavar="A", multiple=True, type=_INPUT, help="Known people, where INPUT is the probes alone."
        ),
        click.option(
            "--unknown",
            metavar="SHARE|FILE",
            help=f"People who are not enrolled: a share of them ({UNKNOWN:g} without --gallery), or a file of names.",
        ),
        click.option(
            "--beside",
            metavar="FILE.npz",
            multiple=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Embeddings of the same sequences by another network, to be evaluated, too.",
        ),
        choice("--baseline", ("gei",), help="Also evaluate the gait-energy image of the silhouettes."),
    )(command)


class Compared(NamedTuple):
    """The result of the open-set mode.

    Attributes:
        results: The evaluations by the names of what was evaluated.
        notes: Sentences about the data, and who is unknown.
    """

    results: dict[str, OpenSet]
    notes: tuple[str, ...]


class _Embedded(NamedTuple):
    """Embeddings of some walks.

    Attributes:
        rows: The numbers of the walks that could be embedded, increasing.
        vectors: Their embeddings `[n, P, C]` by the name of what computed them.
    """

    rows: NDArray[np.intp]
    vectors: dict[str, NDArray[np.float32]]


class _Source(NamedTuple):
    """Walks before they are embedded, those of the gallery first where it is named.

    Attributes:
        items: What is known of each walk.
        enrolled: How many of the walks are from the gallery.
        partition: The partition, or None.
        untrained: The seed of a network that is not trained, or None.
        embed: Gives the embeddings of walks by their numbers, which increase.
    """

    items: list[Item]
    enrolled: int
    partition: Partition | None
    untrained: str | None
    embed: Callable[[NDArray[np.intp]], _Embedded]


def compare(
    inputs: Sequence[Path],
    options: OpenSetOptions,
    protocol: str | None,
    request: Request,
    found: FoundOptions,
    settings: Settings,
    failures: list[str],
) -> Compared:
    """Load or compute embeddings, choose who is unknown, and evaluate.

    Args:
        inputs: Embedding files, or data of any layout: probes, where the options name a gallery, else both sides.
        options: The options of the mode.
        protocol: The protocol whose gallery and probes are taken, or None.
        request: The metric, and the names of probes for the protocol.
        found: How data are opened, and the partition.
        settings: The network for data.
        failures: Gets a sentence for each sequence that could not be embedded.

    Returns:
        The evaluations.

    Raises:
        click.UsageError: Options do not go together.
        ValueError: Files cannot be read or do not belong together, or there is nobody to find or nobody unknown.
        SomeFailed: There is no embedding at all.
    """
    if options.gallery and protocol is not None:
        raise click.UsageError("--gallery says which sequences are the gallery; it cannot be combined with --protocol")
    source = _open(inputs, options, protocol, found, settings, failures)
    chosen, notes = choose_test_set(source.items, protocol or "", source.partition)
    if source.partition is not None:
        notes += mismatches(source.items, protocol or "", source.partition)
    items = [source.items[i] for i in chosen]
    if options.gallery:
        division = _two_sides(items, sum(i < source.enrolled for i in chosen), options)
    else:
        division = _one_side(items, options, protocol, request, source.partition)
    labels = np.array([item.label for item in source.items])
    gallery, probe = (np.array(chosen, np.intp)[side] for side in (division.gallery, division.probe))
    check_labels(labels[probe], labels[gallery])  # before anything is embedded
    embedded = source.embed(np.union1d(gallery, probe))
    embedded.vectors.update(_others(source, embedded, options.beside))
    gallery, probe = (side[np.isin(side, embedded.rows)] for side in (gallery, probe))
    at_gallery, at_probe = (np.searchsorted(embedded.rows, side) for side in (gallery, probe))
    if options.gallery:
        _refuse_same_walks(source.items, embedded, at_gallery, at_probe)
    results = {}
    for name, vectors in embedded.vectors.items():
        with progress_bar() as progress:
            sides = (vectors[at_probe], vectors[at_gallery], labels[probe], labels[gallery])
            results[name] = open_set(*sides, request.metric, progress=progress)
    if source.untrained is not None:
        notes = [f"The network is untrained ({source.untrained}): its numbers say nothing about HSTL.", *notes]
    return Compared(results, (*notes, *division.notes))


def _open(
    inputs: Sequence[Path],
    options: OpenSetOptions,
    protocol: str | None,
    found: FoundOptions,
    settings: Settings,
    failures: list[str],
) -> _Source:
    paths = [*options.gallery, *inputs]
    files = [path for path in paths if is_embedding_file(path)]
    if files and len(files) < len(paths):
        other = next(path for path in paths if path not in files)
        raise click.UsageError(f"expected embedding files or data, not both; got {files[0]} and {other}")
    if files:
        refuse_options_of_data(files[0], found, settings)
        if options.baseline is not None:
            raise click.UsageError(f"--baseline needs silhouettes; {files[0]} holds embeddings only")
        return _of_files(inputs, options.gallery, found)
    if protocol is not None and settings.checkpoint is None and settings.preset is None:
        settings = dataclasses.replace(settings, preset=PRESET[protocol])
    network = load_network(settings)
    sides = [open_input(side, found) for side in (options.gallery, inputs) if side]
    items = [item._replace(label=composed(item.label)) for side in sides for item in side.items]

    def embed(rows: NDArray[np.intp]) -> _Embedded:
        kept, parts, first = [], [], 0
        for side in sides:
            mine = rows[(rows >= first) & (rows < first + len(side))] - first
            part = _embed(side, mine, network, options, found, settings, failures)
            kept.append(part.rows + first)
            parts.append(part.vectors)
            first += len(side)
        vectors = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return _Embedded(np.concatenate(kept), vectors)

    untrained = network.weights if network.untrained else None
    return _Source(items, len(sides[0]) if options.gallery else 0, sides[-1].partition, untrained, embed)


def _of_files(inputs: Sequence[Path], gallery: Sequence[Path], found: FoundOptions) -> _Source:
    joined = join_files([*gallery, *inputs])
    enrolled = len(join_files(gallery).names) if gallery else 0
    partition = None if found.partition is None else load_partition(found.partition)
    items, untrained = [_item(name) for name in joined.names], joined.weights if joined.untrained else None
    name = inputs[0].stem
    return _Source(items, enrolled, partition, untrained, lambda rows: _Embedded(rows, {name: joined.vectors[rows]}))


def _embed(
    every: Sequences,
    rows: NDArray[np.intp],
    network: Network,
    options: OpenSetOptions,
    found: FoundOptions,
    settings: Settings,
    failures: list[str],
) -> _Embedded:
    left_out: list[LeftOut] = []
    chosen = every.subset(rows.tolist())
    embeddings, failed = embed_sequences(network, chosen, settings, left_out)
    failures += failed
    finish_input(every, left_out, found)
    if embeddings is None:
        raise SomeFailed(failures)
    numbers = {item.name: i for i, item in enumerate(chosen.items)}
    kept = [numbers[name] for name in embeddings.names]
    vectors = {embeddings.preset: embeddings.vectors}
    if options.baseline is not None:
        vectors[_ENERGY] = np.stack([gait_energy_image(chosen.read(i)[: settings.max_frames]) for i in kept])
    return _Embedded(rows[kept], vectors)


def _item(name: str) -> Item:
    """The item of a name, which may be no more than a person's."""
    label, type_, view, *_ = [*name.split("/"), "", ""]
    return Item(composed(label), type_, view, name)


def _refuse_same_walks(
    items: Sequence[Item], embedded: _Embedded, gallery: NDArray[np.intp], probe: NDArray[np.intp]
) -> None:
    names = [items[row].name for row in embedded.rows]
    vectors = next(iter(embedded.vectors.values()))
    enrolled = {names[i]: vectors[i] for i in gallery}
    same = [names[i] for i in probe if names[i] in enrolled and np.array_equal(enrolled[names[i]], vectors[i])]
    if same:
        raise ValueError(f"expected probes that are not in the gallery; {len(same)} walks are both: {listed(same)}")


def _others(source: _Source, embedded: _Embedded, files: Sequence[Path]) -> dict[str, NDArray[np.float32]]:
    """The embeddings of the same walks by other networks."""
    names = [source.items[row].name for row in embedded.rows]
    found: dict[str, NDArray[np.float32]] = {}
    if files and len(set(names)) < len(names):
        raise ValueError("--beside finds embeddings by name, and some walks of gallery and probes have one name")
    for path in files:
        other = load_embeddings(path)
        numbers = {name: i for i, name in enumerate(other.names)}
        absent = [name for name in names if name not in numbers]
        if absent:
            raise ValueError(
                f"{path}: expected embeddings of all {len(names)} sequences; "
                f"{len(absent)} are missing: {listed(absent)}"
            )
        if path.stem in (*embedded.vectors, *found):
            raise ValueError(f"{path}: expected a name of its own for what is evaluated; got {path.stem!r} twice")
        found[path.stem] = other.vectors[[numbers[name] for name in names]]
    return found


def _two_sides(items: Sequence[Item], enrolled: int, options: OpenSetOptions) -> Division:
    """Search all inputs in the gallery, without the people who are to be unknown."""
    labels = [item.label for item in items[:enrolled]]
    unknown = frozenset[str]() if options.unknown is None else _unknown(labels, options.unknown)
    gallery = np.array([i for i in range(enrolled) if items[i].label not in unknown], np.intp)
    notes = (_held_out(unknown),) if unknown else ()
    return Division(gallery, np.arange(enrolled, len(items)), notes)


def _one_side(
    items: Sequence[Item], options: OpenSetOptions, protocol: str | None, request: Request, partition: Partition | None
) -> Division:
    check_sequence_names([item.name for item in items])
    unknown = _unknown([item.label for item in items], options.unknown or str(UNKNOWN))
    if protocol is None:
        division = divide(items, unknown)
    else:
        request = named_probes(protocol, request, partition)
        labels, types, views = ([item[i] for item in items] for i in range(3))
        selection = select_sequences(protocol, labels, types, views, request)
        gallery = [i for i in selection.gallery if items[i].label not in unknown]
        note = f"Gallery and probes are those of {protocol}; sequences of the same view are compared, too."
        division = Division(np.array(gallery, np.intp), selection.probe, (note,))
    return division._replace(notes=(_held_out(unknown), *division.notes))


def _held_out(unknown: frozenset[str]) -> str:
    people = "1 person is" if len(unknown) == 1 else f"{len(unknown)} people are"
    return f"{people} not enrolled: {listed(unknown)}."


def _unknown(labels: Sequence[str], given: str) -> frozenset[str]:
    """The people of a share, or of a file of names."""
    try:
        share = float(given)
    except ValueError:
        path = Path(given)
        if not path.is_file():
            raise click.BadParameter(
                f"expected a share such as 0.5, or a file of names; got {given!r}", param_hint="--unknown"
            ) from None
        return check_people(labels, read_people(path))
    if not 0 < share < 1:
        raise click.BadParameter(f"expected a share between 0 and 1; got {given}", param_hint="--unknown")
    return draw_people(labels, share)
