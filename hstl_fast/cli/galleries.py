"""Options and helpers of the commands that work with a gallery of people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from hstl_fast.cli.embedding import SHIPPED_WEIGHTS, Settings, chosen_backend, load_network
from hstl_fast.cli.options import several
from hstl_fast.cli.output import warn
from hstl_fast.network import Network
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.records import Fingerprint
from hstl_fast.recognition.thresholds import Threshold, from_gallery, videos_of
from hstl_fast.recognition.walks import Cutting
from hstl_fast.silhouettes import extras

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SQLITE = b"SQLite format 3\0"
# A single letter is the drive of a path on Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_DATABASE_SUFFIXES = (".db", ".db3", ".sqlite", ".sqlite3")
NO_THRESHOLD = (
    "no threshold: the nearest person is always named, also for strangers; `hstl-fast gallery threshold` shows which "
    "distances let them be nobody"
)
_WALK_OPTIONS = ("min_frames", "min_height", "fps", "segmenter")


def _with_the_extra(_: click.Context, __: click.Parameter, gallery: str) -> str:
    """Name the extra of galleries first: that of video, which it holds, would be one installation of two."""
    extras.sqlalchemy()
    return gallery


gallery_option = click.option(
    "--gallery",
    default="people.db",
    show_default=True,
    metavar="GALLERY",
    callback=_with_the_extra,
    help="A file, or the URL of a database such as postgresql://host/people.",
)


def keep_options(command: _Function) -> _Function:
    """Decorate a command with the options of what a gallery keeps of those who are enrolled."""
    return several(
        click.option(
            "--keep-silhouettes/--no-keep-silhouettes",
            default=True,
            show_default=True,
            help="Keep the silhouettes of enrolled people, so that another network can embed them.",
        ),
        click.option("--keep-days", type=click.IntRange(min=1), help="Delete their recordings after so many days."),
    )(command)


def walk_options(command: _Function) -> _Function:
    """Decorate a command with the options of how people are cut out of videos; `take_cutting` takes them."""
    usual = Cutting()
    return several(
        click.option(
            "--min-frames",
            type=click.IntRange(min=1),
            default=usual.min_frames,
            show_default=True,
            help="Fewest frames of a walk.",
        ),
        click.option(
            "--min-height",
            type=click.IntRange(min=16),
            default=usual.min_height,
            show_default=True,
            help="Lowest person of a video, in pixels.",
        ),
        click.option(
            "--fps",
            type=float,
            help="Frames a second of the walks in a video, at most the video's.  [default: all]",
        ),
        click.option(
            "--segmenter",
            default=usual.segmenter,
            show_default=True,
            metavar="NAME",
            help="What finds people in a video: background, or onnx:MODEL.onnx, as in `hstl-fast silhouettes`.",
        ),
    )(command)


def take_cutting(options: dict[str, Any]) -> Cutting:
    """Take the values of `walk_options` out of the keyword arguments that a command gets, and leave the others."""
    return Cutting(**{name: options.pop(name) for name in _WALK_OPTIONS})


def is_gallery(text: str) -> bool:
    """Tell a gallery of people from embeddings and silhouettes.

    Args:
        text: What was given for a gallery.

    Returns:
        Whether it is the URL of a database or an SQLite file; an empty file and a path where nothing is count as one by
        the suffix, so that the error for it names the command that makes one.
    """
    if _URL.match(text):
        return True
    path = Path(text)
    if path.is_file():
        with path.open("rb") as file:
            first = file.read(len(_SQLITE))
        return first == _SQLITE or (not first and path.suffix.lower() in _DATABASE_SUFFIXES)
    return not path.exists() and path.suffix.lower() in _DATABASE_SUFFIXES


def exists(url: str) -> bool:
    """Tell whether a gallery may be there: a file that is missing is not; a server is asked when it is opened."""
    path = url.removeprefix("sqlite:///")
    return bool(_URL.match(path)) or Path(path).exists()


def given_network(settings: Settings) -> Network | None:
    """Load the network that the options select, or give None where they name none and a gallery's own is meant."""
    given = any(value is not None for value in (settings.preset, settings.checkpoint, settings.seed))
    return load_network(settings) if given else None


@contextmanager
def opened_gallery(url: str, settings: Settings, network: Network | None, create: bool = False) -> Iterator[Gallery]:
    """Open a gallery, and compute with the backend of the options.

    Args:
        url: The gallery.
        settings: The options of a network.
        network: The network of `given_network`.
        create: Whether a gallery that is missing is made.

    Yields:
        The gallery.
    """
    with chosen_backend(settings), Gallery(url, network=network, create=create) as gallery:
        yield gallery


def threshold_of(gallery: Gallery, rate: float) -> Threshold:
    """Choose the threshold for a false-accept rate, with what is known of its errors.

    Args:
        gallery: The gallery.
        rate: The share of strangers who get a name.

    Returns:
        The threshold.

    Raises:
        ValueError: The gallery is too small to tell it.
    """
    known = gallery.vectors()
    return from_gallery(known.vectors, known.people, rate, sources=videos_of(known.sources))


def check_network(gallery: Gallery, network: Network | None) -> None:
    """Check that a gallery's embeddings are those of its network, before walks are read; a warning says whose it is.

    Args:
        gallery: The gallery.
        network: The network of `given_network`.

    Raises:
        GalleryError: The embeddings are those of another network.
    """
    used, given = gallery.fingerprint, Fingerprint.of(gallery.network)
    if used is not None and used != given and gallery.people():
        from hstl_fast.recognition.storage.writing import differing

        raise GalleryError(f"{gallery.url}: {differing(used, given)}")
    if network is None and gallery.network.knows_walkers_only:
        warn(SHIPPED_WEIGHTS)
