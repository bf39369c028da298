"""`hstl-fast hierarchy`: the hierarchy of body regions, found by clustering strips of silhouettes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

import hstl_fast
from hstl_fast.cli.found import FoundOptions, finish_input, found_options, open_input, refuse_same
from hstl_fast.cli.options import choice, new_file, several
from hstl_fast.cli.output import SomeFailed, progress_bar
from hstl_fast.data.found import counted
from hstl_fast.data.partitions import PARTS, part_of
from hstl_fast.data.sequences import Sequences
from hstl_fast.files import atomic_file
from hstl_fast.hierarchy import (
    FEATURES,
    LINKAGES,
    METRICS,
    Hierarchy,
    StripFeatures,
    body_hierarchy,
    bootstrap,
    compare_with_published,
    strip_features,
)
from hstl_fast.hierarchy.measuring import UNREADABLE
from hstl_fast.hierarchy.pictures import SUFFIXES, draw_hierarchy, require_matplotlib
from hstl_fast.hierarchy.stability import UNITS
from hstl_fast.hierarchy.text import DISCLAIMER, describe_comparison, describe_splits, draw_text
from hstl_fast.network import Network
from hstl_fast.ops._dispatch import BACKENDS


@dataclass(frozen=True)
class _Settings:
    """The values of the command's own options."""

    strips: int
    features: str
    checkpoint: Path | None
    stage: int
    backend: str | None
    linkage: str
    metric: str
    clusters: tuple[int, ...]
    bootstrap: int
    resample: str
    seed: int


def _clusters(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected numbers of regions such as 2,4; got {value!r}") from error


def _picture(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a picture that cannot be drawn before the work begins."""
    if value is None:
        return None
    suffix = value.suffix.lower()
    if suffix not in SUFFIXES:
        raise click.BadParameter(f"expected a name that ends in {', '.join(SUFFIXES)}; got {str(value)!r}")
    path = new_file(suffix)(str(value))
    require_matplotlib()
    return path


_OPTIONS = several(
    click.option(
        "--strips",
        type=click.IntRange(2, 64),
        default=8,
        show_default=True,
        help="Equal strips of the body; a divisor of 64.",
    ),
    choice("--features", FEATURES, default="motion", show_default=True, help="What is measured of a strip."),
    click.option(
        "--checkpoint",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Network (.pt) for the features `network`.",
    ),
    click.option(
        "--stage",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Feature map of the network: 0 for its stem, which knows no regions.",
    ),
    choice("--backend", BACKENDS, help="What computes the network's layers; by default auto."),
    choice("--linkage", LINKAGES, default="ward", show_default=True, help="Distance of two clusters."),
    choice("--metric", METRICS, default="euclidean", show_default=True, help="Distance of two strips."),
    click.option(
        "--clusters",
        metavar="N,N,...",
        callback=_clusters,
        default="2,4",
        show_default=True,
        help="Numbers of regions, one for each stage of the network that will have them.",
    ),
    click.option(
        "--bootstrap",
        type=click.IntRange(0, 10_000),
        default=100,
        show_default=True,
        help="Samples of the data to try whether the cuts stay; 0 for none.",
    ),
    choice("--resample", UNITS, default="sequences", show_default=True, help="What --bootstrap draws."),
    click.option("--seed", type=click.IntRange(0), default=2023, show_default=True, help="Seed of the samples."),
)


@click.command(short_help="Find a hierarchy of body regions.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE.json", type=new_file(".json"), help="File to write for training.")
@click.option(
    "--picture",
    metavar="FILE",
    callback=_picture,
    type=click.Path(path_type=Path),
    help=f"Also draw the tree beside the average silhouette ({', '.join(SUFFIXES)}).",
)
@_OPTIONS
@choice("--part", PARTS, help="Measure only the people of this part of the partition.")
@found_options
def hierarchy(
    inputs: tuple[Path, ...], output: Path | None, picture: Path | None, part: str | None, **options: Any
) -> None:
    """Cluster equal strips of the body into a tree of contiguous regions, by features of silhouette sequences.

    The cuts of the tree at --clusters are splits for a network's stages, which `hstl-fast train` reads from the
    file. This is constrained clustering of the features that docs/hierarchy.md defines, not the paper's method, which
    was not published.
    """
    found = FoundOptions.take(options)
    settings = _Settings(**options)
    others = [*inputs, *(path for path in (found.partition, settings.checkpoint) if path is not None)]
    refuse_same(output, others, "--output")
    refuse_same(picture, others, "--picture")
    _check(settings)
    sequences = open_input(inputs, found)
    sequences = sequences if part is None else part_of(sequences, part)
    features = _measured(sequences, settings)
    finish_input(sequences, features.left_out, found)
    tree = body_hierarchy(features, settings.linkage, settings.metric, settings.clusters)
    if settings.bootstrap:
        drawn = bootstrap(tree, features, settings.bootstrap, unit=settings.resample, seed=settings.seed)
        tree = replace(tree, bootstrap=drawn)
    _write(tree, features, output, picture)
    _print(tree)
    if output is not None:
        click.echo(f"\n{output}: splits {tree.splits()}")
    failures = [f"{each.where}: {each.detail}" for each in features.left_out if each.reason == UNREADABLE]
    if failures:
        raise SomeFailed(failures)


def _check(settings: _Settings) -> None:
    """Refuse options that contradict each other before the data are read."""
    if settings.features == "network" and settings.checkpoint is None:
        raise click.UsageError("--features network needs the network: name it with --checkpoint")
    if settings.features != "network" and settings.checkpoint is not None:
        raise click.UsageError(f"--checkpoint is for --features network; got --features {settings.features}")
    if settings.features != "network" and (settings.stage or settings.backend):
        raise click.UsageError(f"--stage and --backend are for --features network; got --features {settings.features}")
    try:
        # A tree of strips that are all alike has the cuts of any other.
        zeros = [[0.0]] * settings.strips
        body_hierarchy(zeros, settings.linkage, settings.metric, settings.clusters)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _measured(sequences: Sequences, settings: _Settings) -> StripFeatures:
    model = None
    if settings.checkpoint is not None:
        model = Network.from_checkpoint(settings.checkpoint).model
    backend: AbstractContextManager[Any] = nullcontext()
    if settings.backend is not None:
        backend = hstl_fast.use_backend(settings.backend)
    with backend, progress_bar() as advance:
        return strip_features(
            sequences, settings.features, settings.strips, model=model, stage=settings.stage, progress=advance
        )


def _write(tree: Hierarchy, features: StripFeatures, output: Path | None, picture: Path | None) -> None:
    drawn = None if picture is None else draw_hierarchy(tree, features.average, picture.suffix.lower())
    if output is not None:
        tree.save(output)
    if picture is not None and drawn is not None:
        with atomic_file(picture) as draft:
            draft.write_bytes(drawn)


def _print(tree: Hierarchy) -> None:
    counts = f"{counted(tree.sequences, 'sequence', 'sequences')}, {counted(tree.frames, 'frame', 'frames')}"
    click.echo(f"{tree.features} features of {tree.strips} strips, {tree.linkage} linkage, {tree.metric} distance")
    click.echo(f"measured on {counts}\n")
    for line in [*draw_text(tree), "", *describe_splits(tree)]:
        click.echo(line)
    if tree.bootstrap is not None:
        click.echo(f"({tree.bootstrap.resamples} resamples of the {tree.bootstrap.unit})")
    if tree.inversions:
        click.echo(
            f"{counted(tree.inversions, 'merge is', 'merges are')} nearer than one before, as happens where only "
            "neighbours may merge; the tree shows them at that one's height."
        )
    click.echo("\nPublished hierarchies beside the tree's cuts at the same numbers of regions:")
    for comparison in compare_with_published(tree):
        click.echo(describe_comparison(comparison))
    click.echo(f"\n{DISCLAIMER}")
