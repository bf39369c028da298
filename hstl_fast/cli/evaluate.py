"""`hstl-fast evaluate`: the tables of the published protocols, and error rates where some people are unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, network_options
from hstl_fast.cli.evaluation_data import Chosen, load_test_set, read_probes
from hstl_fast.cli.evaluation_output import csv_text, json_text, print_outcome
from hstl_fast.cli.found import FoundOptions, found_options, refuse_same
from hstl_fast.cli.open_set import Compared, OpenSetOptions, compare, open_set_options
from hstl_fast.cli.open_set_output import compared_csv, compared_json, print_compared
from hstl_fast.cli.options import choice, new_file
from hstl_fast.cli.output import SomeFailed, progress_bar
from hstl_fast.evaluation import METRICS, PROTOCOLS, open_set_pictures
from hstl_fast.evaluation.pictures import SUFFIXES, draw_pictures, draw_sheet, picture_names, require_matplotlib
from hstl_fast.evaluation.protocols import TAKERS, Outcome, Request, run_protocol
from hstl_fast.files import atomic_file
from hstl_fast.progress import Progress

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _is_sheet(place: Path) -> bool:
    """Whether all pictures go into this one file."""
    return place.suffix.lower() in SUFFIXES and not place.is_dir()


def _pictures(_: click.Context, __: click.Parameter, place: Path | None) -> Path | None:
    """Refuse a place where pictures cannot be written before the work begins."""
    if place is None:
        return None
    if _is_sheet(place):
        new_file(place.suffix.lower())(str(place))
    elif place.is_dir():
        new_file(".png")(str(place / "cmc.png"))
    elif place.exists():
        raise click.BadParameter(f"expected a folder, or a file that ends in {', '.join(SUFFIXES)}; got {str(place)!r}")
    elif not place.parent.is_dir():
        raise click.BadParameter(f"the folder {str(place.parent)!r} does not exist")
    require_matplotlib()
    return place


@click.command(short_help="Evaluate by a published protocol, or with unknown people.")
@choice("--protocol", PROTOCOLS, help="Whose rules: which sequences are compared, and how.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(exists=True, path_type=Path))
@click.option("--probes", metavar="FILE", type=_FILE, help="Probes of gait3d: PROBE_SET, a JSON list, or one a line.")
@choice("--metric", METRICS, default="euclidean", help="Distance of two part embeddings.")
@click.option("--cross-view", is_flag=True, help="casia-b in its cross-view form: one gallery of all views.")
@click.option("--rerank", is_flag=True, help="k-reciprocal re-ranking, for gait3d and grew.")
@click.option("--json", "json_file", metavar="FILE.json", type=new_file(".json"), help="Also write JSON.")
@click.option("--csv", "csv_file", metavar="FILE.csv", type=new_file(".csv"), help="Also write CSV.")
@click.option(
    "--plot",
    metavar="DIR",
    callback=_pictures,
    type=click.Path(path_type=Path),
    help="Also draw heat maps and CMC curves, or ROC and DET curves of --open-set: into a folder, or as one file "
    f"({', '.join(SUFFIXES)}).",
)
@open_set_options
@found_options
@network_options
def evaluate(
    protocol: str | None,
    inputs: tuple[Path, ...],
    probes: Path | None,
    metric: str,
    cross_view: bool,
    rerank: bool,
    json_file: Path | None,
    csv_file: Path | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Evaluate embedding files, or data that are embedded first, by the protocol of a published data set, or openly.

    Sequences are named label/type/view; the TEST_SET of --partition is evaluated. Percentages stand beside the numbers
    of people, probes and gallery sequences, and beside published ones, which are marked as such. For grew, whose people
    are not public, --csv gets the competition's file. The network for data is the protocol's, unless --preset or
    --checkpoint names another.

    With --open-set some people are unknown. Thresholds are found for false-accept rates of 0.1, 1 and 10 %, and the
    true-accept rates there, equal error rates, ROC and DET curves, each with its interval. Who is in INPUT and not in
    --gallery is unknown; without --gallery people are drawn, and of the others the gallery of --protocol or half of the
    recordings is enrolled.
    """
    opened = OpenSetOptions.take(options)
    given = {"probes": probes is not None, "cross_view": cross_view, "rerank": rerank}
    _check_options(protocol, opened, csv_file, plot, given)
    failures: list[str] = []
    found = FoundOptions.take(options)
    read = [path for path in (*inputs, *opened.gallery, *opened.beside, probes, found.partition) if path is not None]
    refuse_same(json_file, read, "--json")
    refuse_same(csv_file, read, "--csv")
    named = None if probes is None else read_probes(probes)
    request = Request(metric, named, cross_view, rerank, plot is not None)
    if opened.open_set:
        compared = compare(inputs, opened, protocol, request, found, Settings(**options), failures)
        _write(_compared_files(compared, json_file, csv_file, plot), plot)
        print_compared(compared)
    elif protocol is not None:
        chosen = load_test_set(inputs, protocol, request, found, Settings(**options), failures)
        _evaluate(protocol, chosen, json_file, csv_file, plot)
    if failures:
        raise SomeFailed(failures)


def _evaluate(protocol: str, chosen: Chosen, json_file: Path | None, csv_file: Path | None, plot: Path | None) -> None:
    notes = list(chosen.notes)
    with progress_bar() as progress:
        outcome = _run(protocol, chosen, progress)
    files = _files(outcome, json_file, csv_file, plot)
    if plot is not None and not any(path == plot or path.parent == plot for path in files):
        notes.append("There is nothing to draw.")
    _write(files, plot)
    print_outcome(outcome, [*_untrained(chosen), *notes])
    if protocol == "grew":
        click.echo(f"{csv_file}: {outcome.counts['probes']} rows for the competition")


def _check_options(
    protocol: str | None, opened: OpenSetOptions, csv_file: Path | None, plot: Path | None, given: dict[str, bool]
) -> None:
    if protocol is None and not opened.open_set:
        raise click.UsageError(f"Missing option '--protocol': expected one of {', '.join(PROTOCOLS)}, or --open-set")
    if opened.open_set and (given["cross_view"] or given["rerank"] or protocol == "grew"):
        raise click.UsageError("--open-set cannot be combined with --cross-view, --rerank, or --protocol grew")
    for option, takers in TAKERS.items():
        if given[option] and protocol not in takers:
            flag = f"--{option.replace('_', '-')}"
            got = "no --protocol" if protocol is None else f"--protocol {protocol}"
            raise click.UsageError(f"{flag} is for {', '.join(takers)}; got {got}")
    if protocol == "grew" and csv_file is None:
        raise click.UsageError("grew has no public answers, so it writes the competition's file: name it with --csv")
    if protocol == "grew" and plot is not None:
        raise click.UsageError("grew has no public answers, so there is nothing to draw with --plot")


def _run(protocol: str, chosen: Chosen, progress: Progress) -> Outcome:
    labels, types, views = ([item[i] for item in chosen.items] for i in range(3))
    request = replace(chosen.request, progress=progress)
    return run_protocol(protocol, chosen.embeddings.vectors, labels, types, views, request)


def _untrained(chosen: Chosen) -> list[str]:
    if not chosen.embeddings.untrained:
        return []
    return [
        f"The network is untrained ({chosen.embeddings.weights}): these numbers say little about who is who, and "
        "nothing about HSTL."
    ]


def _files(
    outcome: Outcome, json_file: Path | None, csv_file: Path | None, plot: Path | None
) -> dict[Path, Callable[[], bytes]]:
    """The files of the output, each with a function that makes its content."""
    files: dict[Path, Callable[[], bytes]] = {}
    if csv_file is not None:
        files[csv_file] = lambda: csv_text(outcome).encode()
    if json_file is not None:
        files[json_file] = lambda: json_text(outcome).encode()
    if plot is not None and picture_names(outcome) and _is_sheet(plot):
        files[plot] = lambda: draw_sheet(outcome, plot.suffix.lower())
    elif plot is not None:
        for name, content in draw_pictures(outcome).items():
            files[plot / f"{name}.png"] = lambda content=content: content  # type: ignore[misc]
    return files


def _compared_files(
    compared: Compared, json_file: Path | None, csv_file: Path | None, plot: Path | None
) -> dict[Path, Callable[[], bytes]]:
    """The files of an open-set evaluation, each with a function that makes its content."""
    files: dict[Path, Callable[[], bytes]] = {}
    if csv_file is not None:
        files[csv_file] = lambda: compared_csv(compared).encode()
    if json_file is not None:
        files[json_file] = lambda: compared_json(compared).encode()
    if plot is not None and _is_sheet(plot):
        files[plot] = lambda: open_set_pictures.draw_sheet(compared.results, plot.suffix.lower())
    elif plot is not None:
        for name, content in open_set_pictures.draw_pictures(compared.results).items():
            files[plot / f"{name}.png"] = lambda content=content: content  # type: ignore[misc]
    return files


def _write(files: dict[Path, Callable[[], bytes]], plot: Path | None) -> None:
    """Write all files; none is begun before the contents of all are there."""
    contents = {path: content() for path, content in files.items()}
    if plot is not None and any(path.parent == plot for path in contents):
        plot.mkdir(exist_ok=True)
    for path, content in contents.items():
        with atomic_file(path) as draft:
            draft.write_bytes(content)
