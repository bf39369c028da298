"""`hstl-fast gallery`: who is in a gallery, and everything that changes it but enrolling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, chosen_backend, load_network, network_options
from hstl_fast.cli.galleries import gallery_option, threshold_of
from hstl_fast.cli.output import print_table, progress_bar
from hstl_fast.cli.serve import serve
from hstl_fast.data.found import counted
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.records import Person, Recording
from hstl_fast.recognition.thresholds import PROBES, Threshold, smallest_rate

# False-accept rates that `gallery threshold` shows where none is asked for.
_RATES = (0.001, 0.01, 0.1)
_SHOWN = 5
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Look at a gallery of people, and change it.")
def gallery() -> None:
    """Look at a gallery that `hstl-fast enroll` made, and change it."""


gallery.add_command(serve)


@gallery.command(name="list", short_help="List the people, or the recordings of one.")
@click.argument("name", required=False)
@gallery_option
@_json_option
def list_(name: str | None, gallery: str, as_json: bool) -> None:
    """List the people of a gallery, or with NAME the recordings of one person."""
    with Gallery(gallery, create=False) as known:
        recordings = known.recordings(name)
        people = [person for person in known.people() if name in (None, person.name)]
        url, revision, fingerprint = known.url, known.revision(), known.fingerprint
    if as_json:
        listed: Sequence[Person | Recording] = people if name is None else recordings
        facts = {"gallery": url, "revision": revision, "network": fingerprint and fingerprint._asdict()}
        facts["people" if name is None else "recordings"] = [_as_json(each) for each in listed]
        click.echo(json.dumps(facts, indent=2))
        return
    if name is None:
        print_table(["name", "recordings", "enrolled"], [[p.name, str(p.recordings), _day(p.created)] for p in people])
    else:
        print_recordings(recordings)
    counts = f"{counted(len(people), 'person', 'people')}, {counted(len(recordings), 'recording', 'recordings')}"
    network = f"; embeddings of {fingerprint.preset} ({fingerprint.weights})" if fingerprint else ""
    click.echo(f"{url}: {counts}{network}")


@gallery.command(short_help="Delete a person or a recording.")
@click.argument("name", required=False)
@gallery_option
@click.option("--recording", type=click.IntRange(min=1), help="Number of the recording to delete, in place of NAME.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str | None, gallery: str, recording: int | None, yes: bool) -> None:
    """Delete NAME with all recordings, or one recording; it cannot be undone."""
    if (name is None) == (recording is None):
        raise click.UsageError("expected NAME or --recording NUMBER")
    with Gallery(gallery, create=False) as known:
        if recording is not None:
            _ask(f"Delete recording {recording} from {known.url}?", yes)
            known.remove_recording(recording)
            click.echo(f"{known.url}: recording {recording} is deleted")
        elif name is not None:
            count = counted(len(known.recordings(name)), "recording", "recordings")
            _ask(f"Delete {name} with {count} from {known.url}?", yes)
            count = counted(known.remove(name), "recording", "recordings")
            click.echo(f"{known.url}: {name} is deleted with {count}")


@gallery.command(short_help="Give a person another name.")
@click.argument("old")
@click.argument("new")
@gallery_option
def rename(old: str, new: str, gallery: str) -> None:
    """Give the person OLD the name NEW."""
    with Gallery(gallery, create=False) as known:
        known.rename(old, new)
        click.echo(f"{known.url}: {old} is now called {new}")


@gallery.command(short_help="Write everything to a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@gallery_option
def export(file: Path, gallery: str) -> None:
    """Write all people and recordings to FILE, which `gallery import` reads on another machine."""
    with Gallery(gallery, create=False) as known:
        known.export(file)
        click.echo(f"{file}: {_counts(known)}")


@gallery.command(name="import", short_help="Add what another gallery exported.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@gallery_option
@click.option("--add", is_flag=True, help="Add recordings to people who are in the gallery already.")
def import_(file: Path, gallery: str, add: bool) -> None:
    """Add all people and recordings of FILE, of `gallery export` or of `hstl-fast embed`; all or none of them.

    In an embedding file, the person is the name of a sequence up to its first slash.
    """
    with Gallery(gallery) as known:
        known.import_(file, add=add)
        click.echo(f"{known.url}: {_counts(known)}")


@gallery.command(short_help="Embed everybody with another network.")
@gallery_option
@network_options
def refresh(gallery: str, **options: Any) -> None:
    """Embed all recordings whose silhouettes are kept with another network, such as that of --checkpoint.

    A run that was stopped goes on when the command is given again. Until all are done the gallery stays as it was.
    """
    settings = Settings(**options)
    network = load_network(settings)
    with chosen_backend(settings), Gallery(gallery, create=False) as known, progress_bar() as advance:
        done, without = known.refresh(network, advance)
        click.echo(f"{known.url}: {counted(done, 'recording', 'recordings')} embedded by {network.preset}")
    if without:
        listed = ", ".join(f"{each.id} of {each.person}" for each in without[:_SHOWN])
        raise click.ClickException(
            f"{_have(len(without))} no silhouettes (--no-keep-silhouettes) and cannot be embedded: {listed}"
            f"{', ...' if len(without) > _SHOWN else ''}; the gallery stays with its network until they are removed "
            "and enrolled again"
        )


@gallery.command(short_help="Choose the distance beyond which a probe is nobody.")
@gallery_option
@click.option(
    "--false-accept-rate",
    "rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATE",
    help="Store the threshold at which this share of strangers gets a name, such as 0.01.",
)
@click.option("--distance", type=click.FloatRange(min=0), help="Store this threshold.")
@click.option("--clear", is_flag=True, help="Store none: the nearest person is always named.")
@_json_option
def threshold(gallery: str, rate: float | None, distance: float | None, clear: bool, as_json: bool) -> None:
    """Show or store the distance beyond which a probe is nobody; `identify` and `watch` take it.

    Without an option, the thresholds for some false-accept rates are shown, found from the gallery itself: every
    recording is compared with the people who are not its own.
    """
    if sum([rate is not None, distance is not None, clear]) > 1:
        raise click.UsageError("--false-accept-rate, --distance, --clear: expected one of them")
    with Gallery(gallery, create=False) as known:
        found: dict[float, Threshold | str] = {}
        if rate is not None:
            found[rate] = chosen = _chosen(known, rate)
            if isinstance(chosen, str):
                raise GalleryError(f"{known.url}: {chosen}")
            known.store_threshold(chosen.distance, chosen.false_accept_rate)
        elif distance is not None or clear:
            known.store_threshold(distance)
        else:
            found = _usual(known)
        stored = known.stored_threshold()
        url = known.url
    if as_json:
        listed = [t.as_json() if isinstance(t, Threshold) else {"asked": r, "reason": t} for r, t in found.items()]
        kept = None if stored is None else {"distance": stored[0], "false_accept_rate": stored[1]}
        click.echo(json.dumps({"gallery": url, "stored": kept, "found": listed}, indent=2))
        return
    if found:
        headers = ["false-accept rate", "interval of 95 %", "distance", "enrolled people named", "interval of 95 %"]
        print_table(headers, [_row(*each) for each in found.items()])
    for remark in dict.fromkeys(remark for each in found.values() for remark in _remarks(each)):
        click.echo(remark)
    click.echo(f"{url}: {_said(stored)}")


@gallery.command(name="delete-expired", short_help="Delete recordings whose time is over.")
@gallery_option
def delete_expired(gallery: str) -> None:
    """Delete the recordings whose --keep-days are over, and people who have no others."""
    with Gallery(gallery, create=False) as known:
        count = counted(known.delete_expired(), "recording", "recordings")
        click.echo(f"{known.url}: {count} deleted, whose time was over; {_counts(known)}")


@gallery.command(short_help="Look for damage.")
@gallery_option
def check(gallery: str) -> None:
    """Check every byte of a gallery: the database, the checksums of embeddings, and kept silhouettes."""
    with Gallery(gallery, create=False) as known, progress_bar() as advance:
        count = counted(known.check(advance), "recording", "recordings")
    click.echo(f"{known.url}: {count} checked, nothing is damaged")


@gallery.command(short_help="Give back the room of what was deleted.")
@gallery_option
def compact(gallery: str) -> None:
    """Rewrite a gallery without the room of deleted recordings; others wait meanwhile."""
    with Gallery(gallery, create=False) as known:
        known.compact()
        click.echo(f"{known.url}: {_counts(known)}")


def print_recordings(recordings: Sequence[Recording]) -> None:
    """Print a table of recordings."""
    rows = [
        [
            str(r.id),
            r.source,
            str(r.frames),
            f"{r.fps:g}" if r.fps else "unknown",
            _day(r.created),
            _day(r.keep_until) if r.keep_until else "",
            "kept" if r.has_silhouettes else "no",
        ]
        for r in recordings
    ]
    print_table(["recording", "source", "frames", "fps", "enrolled", "keep until", "silhouettes"], rows)


def _day(moment: datetime) -> str:
    """Write a moment in local time, as `watch` does."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _as_json(record: Person | Recording) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(record).items()}


def _counts(known: Gallery) -> str:
    people, recordings = len(known.people()), len(known.recordings())
    return f"{counted(people, 'person', 'people')}, {counted(recordings, 'recording', 'recordings')}"


def _have(count: int) -> str:
    return "1 recording has" if count == 1 else f"{count} recordings have"


def _ask(question: str, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True)


def _chosen(known: Gallery, rate: float) -> Threshold | str:
    """The threshold for a false-accept rate, or why the gallery does not tell it."""
    try:
        return threshold_of(known, rate)
    except ValueError as error:
        return str(error)


def _usual(known: Gallery) -> dict[float, Threshold | str]:
    """The thresholds for the usual rates, and where some are smaller than the gallery tells, for the smallest one."""
    least = smallest_rate(min(len(known.vectors().ids), PROBES))
    small = [rate for rate in _RATES if rate < least]
    asked = [*small[-1:], *([least] if small else []), *(rate for rate in _RATES if rate >= least)]
    return {rate: _chosen(known, rate) for rate in asked}


def _row(rate: float, found: Threshold | str) -> list[str]:
    asked = f"{100 * rate:.3g} %"
    if isinstance(found, str):
        return [asked, "", "cannot be told", "", ""]
    accepted = "unknown" if found.true_accept_rate is None else f"{100 * found.true_accept_rate:.1f} %"
    intervals = [
        "unknown" if interval is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
        for interval in (found.false_accept_interval, found.true_accept_interval)
    ]
    return [asked, intervals[0], f"{found.distance:.6f}", accepted, intervals[1]]


def _remarks(found: Threshold | str) -> tuple[str, ...]:
    return (f"{found[0].upper()}{found[1:]}.",) if isinstance(found, str) else found.remarks


def _said(stored: tuple[float, float | None] | None) -> str:
    if stored is None:
        return "no threshold is stored: the nearest person is always named"
    distance, rate = stored
    known = "" if rate is None else f", for a false-accept rate of {100 * rate:g} %"
    return f"the threshold {distance:.6f} is stored{known}"
