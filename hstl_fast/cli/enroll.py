"""`hstl-fast enroll`: somebody enrolled in a gallery by videos or silhouettes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, load_network, network_options
from hstl_fast.cli.found import FoundOptions, finish_input, open_input
from hstl_fast.cli.galleries import (
    check_network,
    exists,
    gallery_option,
    given_network,
    keep_options,
    opened_gallery,
    take_cutting,
    walk_options,
)
from hstl_fast.cli.gallery import print_recordings
from hstl_fast.cli.options import new_file
from hstl_fast.cli.output import SomeFailed, progress_bar
from hstl_fast.data.found import counted
from hstl_fast.data.layouts import FOLDERS
from hstl_fast.data.opening import open_together
from hstl_fast.data.sequences import Sequences
from hstl_fast.files import atomic_file
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.names import check_name, check_new_name, refuse_twins
from hstl_fast.recognition.records import Clip
from hstl_fast.recognition.walks import Cutting, Walk, Walks, chosen, is_video, number_of
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.finding import is_sequence
from hstl_fast.silhouettes.video.sheet import contact_sheet

_ALL = "all"


def _numbers(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[int] | str | None:
    """The numbers of tracks, `all`, or None where none is given."""
    if not given:
        return None
    if given == (_ALL,):
        return _ALL
    if not all(text.isdecimal() and int(text) > 0 for text in given):
        raise click.BadParameter(f"expected the number of a track, from 1, or {_ALL} alone; got {', '.join(given)}")
    return [int(text) for text in given]


@click.command(short_help="Enrol somebody in a gallery.")
@click.argument("name")
@click.argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="VIDEO_OR_SILHOUETTES...",
    type=click.Path(exists=True, path_type=Path),
)
@gallery_option
@click.option("--add", is_flag=True, help="Add recordings to somebody who is enrolled already.")
@click.option(
    "--track",
    "tracks",
    multiple=True,
    metavar="N|all",
    callback=_numbers,
    help="Track of the video to take; several times for several. all: also tracks that overlap in time.",
)
@click.option("--contact-sheet", metavar="FILE.png", type=new_file(".png"), help="Draw the walks that the inputs hold.")
@keep_options
@walk_options
@network_options
def enroll(
    name: str,
    inputs: tuple[Path, ...],
    gallery: str,
    add: bool,
    tracks: list[int] | str | None,
    contact_sheet: Path | None,
    keep_silhouettes: bool,
    keep_days: int | None,
    **options: Any,
) -> None:
    """Enrol NAME in a gallery by videos in which nobody else walks, or by silhouettes.

    All walks are enrolled, or none where something is wrong with one. Tracks of a video that overlap in time are not
    one person: then --track says which are.
    """
    if Path(name).is_file() and (is_video(Path(name)) or is_sequence(name)):
        raise click.BadParameter(f"expected a person before the files, got a file: {name}", param_hint="NAME")
    name = check_name(name)
    cutting, settings = take_cutting(options), Settings(**options)
    network = given_network(settings)
    # What the gallery would refuse afterwards is refused before a long video is read.
    if exists(gallery):
        with opened_gallery(gallery, settings, network, create=True) as known:
            check_network(known, network)
            known.delete_expired()
            _refuse_taken(known, name, add)
    else:
        check_new_name(name)
        network = load_network(settings) if network is None else network
    walks = _walks(inputs, cutting, settings, tracks, contact_sheet)
    with opened_gallery(gallery, settings, network, create=True) as known:
        clips = [walk.clip for walk in walks]
        recordings = known.enroll(name, clips, add=add, keep_silhouettes=keep_silhouettes, keep_days=keep_days)
        total = len(known.recordings(name))
        print_recordings(recordings)
        click.echo(f"{known.url}: {recordings[0].person} has {counted(total, 'recording', 'recordings')}")


def _refuse_taken(known: Gallery, name: str, add: bool) -> None:
    names = [person.name for person in known.people()]
    if name not in names:
        refuse_twins([check_new_name(name)], names)
    elif not add:
        raise GalleryError(
            f"{known.url}: the name {name!r} is taken already: add recordings to the person (--add), or choose "
            "another name"
        )


def _walks(
    inputs: Sequence[Path],
    cutting: Cutting,
    settings: Settings,
    tracks: list[int] | str | None,
    sheet: Path | None,
) -> list[Walk]:
    """The walks to enrol."""
    if isinstance(tracks, list) and (videos := sum(map(is_video, inputs))):
        _refuse_other_than_one(videos)  # before they are read
    with progress_bar() as advance:
        found = Walks(inputs, cutting, settings.max_frames, advance, _opened)
        walks = list(found)
    if sheet is not None and walks:
        _draw(sheet, walks)
    if found.sequences is not None:
        finish_input(found.sequences, found.left_out, FoundOptions())
    if found.failures:
        raise SomeFailed(found.failures)
    groups = [(video, list(group)) for video, group in groupby(walks, key=lambda walk: walk.video)]
    if isinstance(tracks, list):
        _refuse_other_than_one(sum(video is not None for video, _ in groups))
    return [walk for video, group in groups for walk in (group if video is None else _taken(video, group, tracks))]


def _refuse_other_than_one(videos: int) -> None:
    if videos != 1:
        raise click.UsageError(f"--track: expected one video beside the number of a track, got {videos}")


def _taken(video: Path, walks: list[Walk], tracks: list[int] | str | None) -> list[Walk]:
    """The walks of one video that are enrolled."""
    taken = walks if tracks == _ALL else chosen(walks, tracks if isinstance(tracks, list) else None)
    if len(taken) > 1:
        numbers = ", ".join(str(number_of(walk.track)) for walk in taken if walk.track is not None)
        click.echo(f"{video}: {len(taken)} tracks are taken as one person: {numbers}")
    return taken


def _opened(paths: list[Path]) -> Sequences:
    """Open silhouettes of one person."""
    sequences = open_input(paths)
    people = sorted(set(sequences.labels))
    if sequences.layout != FOLDERS and len(people) > 1:
        raise ValueError(
            f"{sequences.source}: expected walks of one person, got {len(people)} people (layout {sequences.layout}): "
            f"{_listed(people)}; give the folder of one"
        )
    for folder in (path for path in paths if sequences.layout == FOLDERS and path.is_dir()):
        names = sorted(set(open_together([folder]).labels))
        if len(names) > 1:  # the walks of one person, or of several: their names do not tell
            raise ValueError(
                f"{folder}: expected the walks of one person, got {len(names)} walks that may be of several people: "
                f"{_listed(names)}; give those of one person one by one"
            )
    return sequences


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


class _Drawn:
    """A walk as `contact_sheet` takes it."""

    def __init__(self, clip: Clip) -> None:
        self.name, self.silhouettes = clip.source, clip.silhouettes


def _draw(path: Path, walks: Sequence[Walk]) -> None:
    ok, data = opencv().imencode(".png", contact_sheet([_Drawn(walk.clip) for walk in walks]))
    if not ok:
        raise RuntimeError(f"{path}: the contact sheet could not be encoded as PNG")
    with atomic_file(path) as draft:
        draft.write_bytes(data.tobytes())
