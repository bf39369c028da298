"""`hstl-fast identify`: the people of a gallery ranked for each probe."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import click
import torch

from hstl_fast.cli.embedding import Settings, embed_sequences, load_network, network_options
from hstl_fast.cli.found import open_input
from hstl_fast.cli.options import choice, new_file
from hstl_fast.cli.output import SomeFailed, print_table
from hstl_fast.evaluation import (
    METRICS,
    Embeddings,
    check_comparable,
    is_embedding_file,
    load_embeddings,
    nearest,
    part_distances,
    rank_one,
)
from hstl_fast.files import atomic_file
from hstl_fast.network import Network

_INPUT = click.Path(exists=True, path_type=Path)


@click.command(short_help="Rank the gallery for each probe.")
@click.option("--gallery", required=True, metavar="A", type=_INPUT, help="Known people: embeddings or silhouettes.")
@click.option("--probe", required=True, metavar="B", type=_INPUT, help="People to find: embeddings or silhouettes.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Length of each ranked list.")
@choice("--metric", METRICS, default="euclidean", help="Distance of two part embeddings.")
@click.option("--csv", "csv_file", metavar="FILE.csv", type=new_file(".csv"), help="Also write the lists as CSV.")
@click.option("--json", "json_file", metavar="FILE.json", type=new_file(".json"), help="Also write the lists as JSON.")
@network_options
def identify(
    gallery: Path,
    probe: Path,
    top: int,
    metric: str,
    csv_file: Path | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Rank the gallery's sequences by their distance to each probe.

    The distance of two sequences is the mean over parts of the distance of their embeddings. A name up to its first
    slash is the person; where probes have a partner of that name in the gallery, rank-1 is printed too.
    """
    failures: list[str] = []
    known, unknown = _embeddings(gallery, probe, Settings(**options), failures)
    check_comparable(known, unknown)
    distances = part_distances(torch.from_numpy(unknown.vectors), torch.from_numpy(known.vectors), metric)
    ranking = _ranking(distances, known, unknown, top)
    hits, scored = rank_one(distances, unknown.names, known.names)
    if csv_file:
        with atomic_file(csv_file) as draft:
            draft.write_bytes(_csv(ranking).encode())
    if json_file:
        with atomic_file(json_file) as draft:
            draft.write_bytes(_json(ranking, known, metric, hits, scored).encode())
    print_table(["probe", "rank", "gallery", "distance"], [[p, str(r), g, f"{d:.6f}"] for p, r, g, d in ranking])
    if scored:
        click.echo(f"rank-1: {hits} of {scored} ({hits / scored:.1%})")
    if failures:
        raise SomeFailed(failures)


# A row holds probe, rank from 1, gallery sequence and distance; rows are grouped by probe.
_Ranking = list[tuple[str, int, str, float]]


def _embeddings(gallery: Path, probe: Path, settings: Settings, failures: list[str]) -> tuple[Embeddings, Embeddings]:
    """Both sides; silhouettes are embedded with the network that the embedding file of the other side names, if any."""
    sides = {path: load_embeddings(path) for path in (gallery, probe) if is_embedding_file(path)}
    for embeddings in sides.values():
        settings = _like(embeddings, settings)
    if gallery not in sides or probe not in sides:
        network = load_network(settings)
        for path in dict.fromkeys((gallery, probe)):
            if path not in sides:
                sides[path] = _embed(path, network, settings, failures)
    return sides[gallery], sides[probe]


def _like(embeddings: Embeddings, settings: Settings) -> Settings:
    if settings.checkpoint is None and settings.seed is None and embeddings.untrained:
        settings = dataclasses.replace(settings, seed=int(embeddings.weights.removeprefix("seed:")))
    if settings.checkpoint is None and not embeddings.untrained:
        raise click.UsageError(
            f"the embeddings were made with a checkpoint ({embeddings.weights}); pass it as --checkpoint"
        )
    return dataclasses.replace(settings, preset=settings.preset or embeddings.preset)


def _embed(path: Path, network: Network, settings: Settings, failures: list[str]) -> Embeddings:
    embeddings, failed = embed_sequences(network, open_input([path]), settings)
    failures += failed
    if embeddings is None:
        raise SomeFailed(failures)
    return embeddings


def _ranking(distances: torch.Tensor, gallery: Embeddings, probe: Embeddings, top: int) -> _Ranking:
    return [
        (name, rank, gallery.names[index], float(distances[row, index]))
        for row, (name, indices) in enumerate(zip(probe.names, nearest(distances, top).tolist()))
        for rank, index in enumerate(indices, 1)
    ]


def _csv(ranking: _Ranking) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["probe", "rank", "gallery", "distance"])
    writer.writerows(ranking)
    return text.getvalue()


def _json(ranking: _Ranking, gallery: Embeddings, metric: str, hits: int, scored: int) -> str:
    matches: dict[str, list[dict[str, Any]]] = {}
    for probe, rank, name, distance in ranking:
        matches.setdefault(probe, []).append({"rank": rank, "gallery": name, "distance": distance})
    result = {
        "preset": gallery.preset,
        "weights": gallery.weights,
        "metric": metric,
        "rank_1": {"hits": hits, "probes": scored},
        "probes": [{"probe": probe, "matches": found} for probe, found in matches.items()],
    }
    return json.dumps(result, indent=2, allow_nan=False) + "\n"
