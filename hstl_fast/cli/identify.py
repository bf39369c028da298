"""`hstl-fast identify`: names for probes, or the sequences of a gallery ranked for each."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, embed_sequences, load_network, network_options
from hstl_fast.cli.found import FoundOptions, finish_input, found_options, open_input
from hstl_fast.cli.galleries import is_gallery
from hstl_fast.cli.naming import Naming, Wanted, name_probes, naming_options
from hstl_fast.cli.options import choice, new_file
from hstl_fast.cli.output import SomeFailed, print_table, progress_bar, warn, write_csv, write_json
from hstl_fast.cli.ranked import Ranked, compared_rates, count_people, rank, rank_one, why_no_rank_one
from hstl_fast.data.found import counted
from hstl_fast.evaluation import METRICS, Embeddings, check_comparable, is_embedding_file, load_embeddings
from hstl_fast.network import Network, shipped_weights
from hstl_fast.silhouettes.left_out import LeftOut

_INPUT = click.Path(exists=True, path_type=Path)
_METRIC = "euclidean"
_TOP = 5


def _gallery(context: click.Context, parameter: click.Parameter, given: str) -> str | Path:
    """The name of a gallery of people, or the path of embeddings or silhouettes."""
    return given if is_gallery(given) else Path(_INPUT.convert(given, parameter, context))


@click.command(short_help="Name people, or rank the gallery for each probe.")
@click.option(
    "--gallery",
    required=True,
    metavar="A",
    callback=_gallery,
    help="Known people: a gallery of `hstl-fast enroll` (a file or URL), embeddings or silhouettes.",
)
@click.option(
    "--probe",
    "probes",
    required=True,
    multiple=True,
    metavar="B",
    type=_INPUT,
    help="People to find: embeddings or silhouettes; with a gallery of people also videos, and several times.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Length of each ranked list.  [default: 5; of people 1 is printed]",
)
@choice("--metric", METRICS, default=_METRIC, help="Distance of two part embeddings.")
@click.option("--csv", "csv_file", metavar="FILE.csv", type=new_file(".csv"), help="Also write the lists as CSV.")
@click.option("--json", "json_file", metavar="FILE.json", type=new_file(".json"), help="Also write the lists as JSON.")
@naming_options
@found_options
@network_options
def identify(
    gallery: str | Path,
    probes: tuple[Path, ...],
    top: int | None,
    metric: str,
    csv_file: Path | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Name the people in probes, or rank the gallery's sequences by their distance to each probe.

    With a gallery of people (`hstl-fast enroll`), each probe gets a name, or nobody where the nearest person is farther
    than the threshold: --threshold, that of --false-accept-rate, or the gallery's own.

    With embeddings or silhouettes as a gallery, sequences are ranked. The distance of two is the mean over parts of the
    distance of their embeddings. A name up to its first slash is the person; where probes have a partner of that name
    in the gallery, rank-1 is printed too. A gallery sequence that is the probe itself is left out of its ranking.
    """
    naming, found = Naming.take(options), FoundOptions.take(options)
    settings = Settings(**options)
    if isinstance(gallery, str):
        if metric != _METRIC:
            raise click.UsageError(f"--metric: expected {_METRIC} with a gallery of people, got {metric}")
        name_probes(gallery, probes, naming, found, settings, Wanted(top, csv_file, json_file))
        return
    if given := naming.given():
        raise click.UsageError(f"{', '.join(given)}: expected a gallery of people beside it, got {gallery}")
    if len(probes) != 1:
        raise click.UsageError(f"--probe: expected one where the gallery is {gallery}, got {len(probes)}")
    _rank(gallery, probes[0], metric, found, settings, Wanted(top or _TOP, csv_file, json_file))


def _rank(gallery: Path, probe: Path, metric: str, found: FoundOptions, settings: Settings, wanted: Wanted) -> None:
    """Rank the sequences of embeddings or silhouettes."""
    failures: list[str] = []
    known, unknown = _embeddings(gallery, probe, settings, found, failures)
    check_comparable(known, unknown)
    with progress_bar() as advance:
        ranked = rank(known, unknown, wanted.top or _TOP, metric, advance)
    ranking = _ranking(ranked, known, unknown)
    hits, scored = rank_one(ranked, known.names, unknown.names)
    reason = why_no_rank_one(known.names, unknown.names, scored)
    counts = {"gallery": count_people(known.names), "probe": count_people(unknown.names)}
    if wanted.csv_file:
        write_csv(wanted.csv_file, ["probe", "rank", "gallery", "distance"], ranking)
    if wanted.json_file:
        result = {
            "preset": known.preset,
            "weights": known.weights,
            "metric": metric,
            "counts": counts,
            "left_out_of_own_ranking": len(ranked.in_gallery),
            "rank_1": None if reason else {"hits": hits, "probes": scored},
            "why_no_rank_1": reason,
            "probes": _matches(ranking),
        }
        write_json(wanted.json_file, result)
    print_table(["probe", "rank", "gallery", "distance"], [[p, str(r), g, f"{d:.6f}"] for p, r, g, d in ranking])
    for side, count in counts.items():
        people, sequences = counted(count["people"], "person", "people"), count["sequences"]
        click.echo(f"{side}: {people}, {counted(sequences, 'sequence', 'sequences')}")
    _say_what_is_in_both(ranked, unknown)
    if warning := compared_rates(known, unknown):
        warn(f"Warning: {warning}")
    click.echo(f"rank-1 is not printed: {reason}" if reason else f"rank-1: {hits} of {scored} ({hits / scored:.1%})")
    if failures:
        raise SomeFailed(failures)


# A row holds probe, rank from 1, gallery sequence and distance; rows are grouped by probe.
_Ranking = list[tuple[str, int, str, float]]


def _embeddings(
    gallery: Path, probe: Path, settings: Settings, found: FoundOptions, failures: list[str]
) -> tuple[Embeddings, Embeddings]:
    """Both sides; silhouettes are embedded with the network that the embedding file of the other side names, if any."""
    sides = {path: load_embeddings(path) for path in (gallery, probe) if is_embedding_file(path)}
    for embeddings in sides.values():
        settings = _like(embeddings, settings)
    to_embed = {path: side for side, path in (("gallery", gallery), ("probe", probe)) if path not in sides}
    if to_embed:
        network = load_network(settings)
        for path, side in to_embed.items():
            options = found if len(to_embed) == 1 else _reporting(found, side)
            sides[path] = _embed(path, network, settings, options, failures)
    elif given := found.given():
        raise click.UsageError(f"{', '.join(given)}: expected data to be embedded; both inputs hold embeddings already")
    return sides[gallery], sides[probe]


def _reporting(found: FoundOptions, side: str) -> FoundOptions:
    """The options with a report file of its own for one side."""
    if found.report is None:
        return found
    return dataclasses.replace(found, report=found.report.with_stem(f"{found.report.stem}-{side}"))


def _like(embeddings: Embeddings, settings: Settings) -> Settings:
    if settings.checkpoint is None and settings.seed is None and embeddings.untrained:
        settings = dataclasses.replace(settings, seed=int(embeddings.weights.removeprefix("seed:")))
    if settings.checkpoint is None and embeddings.weights == shipped_weights():
        return settings
    if settings.checkpoint is None and not embeddings.untrained:
        raise click.UsageError(
            f"the embeddings were made with a checkpoint ({embeddings.weights}); pass it as --checkpoint"
        )
    return dataclasses.replace(settings, preset=settings.preset or embeddings.preset)


def _embed(path: Path, network: Network, settings: Settings, found: FoundOptions, failures: list[str]) -> Embeddings:
    sequences = open_input([path], found, settings.max_frames)
    left_out: list[LeftOut] = []
    embeddings, failed = embed_sequences(network, sequences, settings, left_out)
    failures += failed
    finish_input(sequences, left_out, found)
    if embeddings is None:
        raise SomeFailed(failures)
    return embeddings


def _say_what_is_in_both(ranked: Ranked, probe: Embeddings) -> None:
    if ranked.in_gallery:
        first = probe.names[next(iter(ranked.in_gallery))]
        count = len(ranked.in_gallery)
        click.echo(f"probes that are in the gallery, left out of their own rankings: {count}, such as {first}")
    if ranked.same_name:
        first = probe.names[ranked.same_name[0]]
        click.echo(
            "probes with the whole name of a gallery sequence but another embedding, ranked as different sequences: "
            f"{len(ranked.same_name)}, such as {first}"
        )


def _ranking(ranked: Ranked, gallery: Embeddings, probe: Embeddings) -> _Ranking:
    return [
        (name, place, gallery.names[index], distance)
        for name, found in zip(probe.names, ranked.lists, strict=True)
        for place, (index, distance) in enumerate(found, 1)
    ]


def _matches(ranking: _Ranking) -> list[dict[str, Any]]:
    matches: dict[str, list[dict[str, Any]]] = {}
    for probe, place, name, distance in ranking:
        matches.setdefault(probe, []).append({"rank": place, "gallery": name, "distance": distance})
    return [{"probe": probe, "matches": found} for probe, found in matches.items()]
