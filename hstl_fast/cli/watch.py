"""`hstl-fast watch`: people named in front of a camera, in a stream or in a video file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings
from hstl_fast.cli.galleries import NO_THRESHOLD, check_network, gallery_option, keep_options, opened_gallery
from hstl_fast.cli.options import choice, several
from hstl_fast.cli.watching import Lines, summary
from hstl_fast.network import Network
from hstl_fast.ops._dispatch import BACKENDS
from hstl_fast.recognition.live import sources
from hstl_fast.recognition.live.drawing import draw
from hstl_fast.recognition.live.events import Source
from hstl_fast.recognition.live.saving import SUFFIXES, Recorder
from hstl_fast.recognition.live.statistics import Statistics
from hstl_fast.recognition.live.watcher import LEAST_HEIGHT, LONGEST_WINDOW, MOST_EVERY, SHORTEST_WINDOW, Watcher
from hstl_fast.recognition.server import Keeping, LivePage
from hstl_fast.signals import Ending

_Command = Callable[..., Any]
_POSITIVE = click.FloatRange(min=0, min_open=True)
# Seconds between two looks at whether the page is to end.
_GLANCE = 0.1


@dataclass(frozen=True)
class Output:
    """The values of the options that say where results go.

    Attributes:
        save: The annotated video to write, or None.
        overwrite: Whether an earlier video may be replaced.
        json_file: A file for JSON lines, `-` for standard output, or None.
        show_every: Seconds between two lines of status, or None for the usual ones.
    """

    save: Path | None
    overwrite: bool
    json_file: str | None
    show_every: float | None


@dataclass(frozen=True)
class Place:
    """The values of the options of the page.

    Attributes:
        serve: Whether there is a page.
        host: What it listens at.
        port: Its port.
        token: What requests bring along, or None.
    """

    serve: bool
    host: str | None
    port: int | None
    token: str | None


def _recognition_options(command: _Command) -> _Command:
    return several(
        click.option(
            "--threshold",
            type=click.FloatRange(min=0),
            metavar="D",
            help="Greatest distance at which a name is given.  [default: the gallery's, or always the nearest name]",
        ),
        click.option(
            "--false-accept-rate",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            metavar="R",
            help="Share of strangers who may get a name; the threshold for it comes from the gallery.",
        ),
        click.option(
            "--every",
            type=click.IntRange(1, MOST_EVERY),
            default=15,
            show_default=True,
            help="Frames between two looks at who somebody is.",
        ),
        click.option(
            "--window",
            type=click.IntRange(SHORTEST_WINDOW, LONGEST_WINDOW),
            default=30,
            show_default=True,
            help="Silhouettes that are embedded at a time.",
        ),
        click.option(
            "--min-height",
            type=click.IntRange(min=LEAST_HEIGHT),
            default=48,
            show_default=True,
            help="Lowest person, in pixels.",
        ),
        click.option(
            "--segmenter",
            default="background",
            show_default=True,
            metavar="NAME",
            help="What finds people: background (the camera stands still), or onnx:MODEL.onnx, a segmentation model.",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Weights (.pt) that made the gallery, where they are not those that come along.",
        ),
        choice("--backend", BACKENDS, help="What computes the layers; by default auto."),
    )(command)


def _source_options(command: _Command) -> _Command:
    return several(
        click.option("--loop", is_flag=True, help="Begin a file again at its end."),
        click.option("--pace", is_flag=True, help="Play a file at its own rate, as a camera would."),
        click.option(
            "--timeout",
            type=_POSITIVE,
            default=10.0,
            show_default=True,
            help="Seconds without a frame after which a camera or a stream is opened again.",
        ),
        click.option("--max-seconds", type=_POSITIVE, help="End after so many seconds."),
    )(command)


def _output_options(command: _Command) -> _Command:
    return several(
        click.option(
            "--save",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"Also write a video with names drawn in: {', '.join(SUFFIXES)}. An abrupt end loses an .mp4.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace an earlier file of --save."),
        click.option(
            "--json",
            "json_file",
            metavar="FILE|-",
            help="Append sightings to a file as JSON lines; - prints them in place of the text.",
        ),
        click.option(
            "--show-every",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="Time between two lines of status, 0 for none.  [default: 1 on a terminal, else 10]",
        ),
    )(command)


def _page_options(command: _Command) -> _Command:
    return several(
        click.option("--serve", is_flag=True, help="Also show pictures, sightings and people on a local web page."),
        click.option("--host", help="What the page listens at.  [default: 127.0.0.1, this machine alone]"),
        click.option("--port", type=click.IntRange(0, 65535), help="Port of the page; 0 takes any.  [default: 8017]"),
        click.option(
            "--token",
            help="What others need to see the page.  [default: one is made where others can reach it]",
        ),
    )(command)


@click.command(short_help="Name people live.")
@click.argument("source")
@gallery_option
@_recognition_options
@_source_options
@_output_options
@_page_options
@keep_options
def watch(
    source: str,
    gallery: str,
    loop: bool,
    pace: bool,
    timeout: float,
    max_seconds: float | None,
    checkpoint: Path | None,
    backend: str | None,
    **options: Any,
) -> None:
    """Name the people in front of a camera, in a network stream or in a video file.

    SOURCE is a camera (0, /dev/video0), an address (rtsp://user:password@host/path, http://host/video.mjpg) or a file.
    There is a line when somebody is first named, when the answer changes, and when he has gone. Ctrl-C ends cleanly.
    """
    output = Output(*(options.pop(name) for name in ("save", "overwrite", "json_file", "show_every")))
    place = Place(*(options.pop(name) for name in ("serve", "host", "port", "token")))
    keeping = Keeping(options.pop("keep_silhouettes"), options.pop("keep_days"))
    if options["threshold"] is not None and options["false_accept_rate"] is not None:
        raise click.UsageError("--threshold and --false-accept-rate: expected one of them, got both")
    if not place.serve and any(value is not None for value in (place.host, place.port, place.token)):
        raise click.UsageError("--host, --port and --token: expected with --serve, got without it")
    if not place.serve and keeping != Keeping():
        raise click.UsageError(
            "--keep-days and --no-keep-silhouettes: expected with --serve, where people are enrolled"
        )
    with ExitStack() as stack:
        alone = output.json_file == "-"
        json_file = None if output.json_file is None or alone else stack.enter_context(_appended(output.json_file))
        lines = Lines(json_file, alone, output.show_every)
        stack.callback(lines.clear)
        opened = sources.open_source(source, loop=loop, pace=pace, timeout=timeout, report=lines.say)
        recording = Recording(output, opened, lines)
        stack.callback(recording.close)
        network = None if checkpoint is None else Network.from_checkpoint(checkpoint)
        settings = Settings(None, checkpoint, None, backend)
        # The page can enrol the first people.
        known = stack.enter_context(opened_gallery(gallery, settings, network, create=place.serve))
        check_network(known, network)
        if not known.people():
            how = "enrol on the page" if place.serve else "see `hstl-fast enroll`"
            lines.say(f"{known.url}: the gallery is empty, so everybody is nobody; {how}")
        elif (rate := options["false_accept_rate"]) is not None:
            known.threshold(rate)  # what the gallery cannot tell is said now, not when the first person comes
        elif options["threshold"] is None and known.stored_threshold() is None:
            lines.say(NO_THRESHOLD)
        watcher = Watcher(known, **options)
        page = stack.enter_context(_served(place, known, watcher, opened, keeping, lines))
        ending = stack.enter_context(Ending(opened.close))
        stack.enter_context(_limited(opened, max_seconds))
        _run(watcher, opened, recording, page, lines)
        if page is not None and ending.signal is None and max_seconds is None:
            _keep(page, opened, ending, lines)
    recording.raise_failure()


def _run(watcher: Watcher, source: Source, recording: Recording, page: Any, lines: Lines) -> None:
    """Watch until the source ends; whatever happens, say at the end what the run brought."""
    statistics = Statistics()
    try:
        for update in watcher.updates(source):
            statistics.add(update)
            for sighting in update.sightings:
                lines.sighting(sighting)
            lines.status(update)
            looked_at = page is not None and page.wants_pictures
            picture = draw(update) if recording.goes_on or looked_at else None
            if picture is not None:
                recording.write(picture, update.frame.seconds)
            if page is not None:
                page.show(update, picture if looked_at else None)
    finally:
        recording.close()
        if statistics.frames:
            lines.result(summary(statistics, source.reconnections, getattr(source, "bad_frames", 0)))


def _appended(name: str) -> FileIO:
    """Open a file whose end gets lines, each at once."""
    return FileIO(name, "a")


class Recording:
    """An annotated video whose failure does not end the recognition.

    Args:
        output: Where it goes, if anywhere.
        source: What is watched.
        lines: Says what fails.

    Attributes:
        goes_on: Whether pictures are still wanted.
    """

    def __init__(self, output: Output, source: Source, lines: Lines) -> None:
        self._recorder = None
        self._lines, self._failure = lines, ""
        if output.save is not None:
            self._recorder = Recorder(output.save, source.fps, overwrite=output.overwrite)

    @property
    def goes_on(self) -> bool:
        return self._recorder is not None

    def write(self, picture: Any, seconds: float) -> None:
        """Write a picture; an error ends the video, and is said at once and at the end."""
        if self._recorder is None:
            return
        try:
            self._recorder.write(picture, seconds)
        except OSError as error:
            self._fail(error)
            self.close()

    def close(self) -> None:
        """Finish the video."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        try:
            recorder.close()
        except OSError as error:
            self._fail(error)
            return
        if recorder.frames:
            self._lines.result(f"{recorder.path}: {recorder.frames} frames, {recorder.frames / recorder.fps:.1f} s")

    def raise_failure(self) -> None:
        """Raise what went wrong.

        Raises:
            click.ClickException: The video is not whole.
        """
        if self._failure:
            raise click.ClickException(f"the video is not whole: {self._failure}")

    def _fail(self, error: OSError) -> None:
        self._failure = self._failure or str(error)
        self._lines.say(f"Warning: {error}; no more is saved, and watching goes on")


@contextmanager
def _limited(source: Source, seconds: float | None) -> Iterator[None]:
    """Close the source after some seconds of the block."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, source.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _served(
    place: Place, gallery: Any, watcher: Watcher, source: Source, keeping: Keeping, lines: Lines
) -> Iterator[Any]:
    """Serve the page in a block, or none."""
    if not place.serve:
        yield None
        return
    given = {name: value for name, value in vars(place).items() if name != "serve" and value is not None}
    with LivePage(gallery, watcher, source, keeping=keeping, **given) as page:
        lines.say(page.address.announcement)
        yield page


def _keep(page: Any, source: Source, ending: Ending, lines: Lines) -> None:
    """Leave the page where the source has ended, until a signal comes."""
    page.end(f"{source.name} has ended")
    lines.say(f"{source.name} has ended; the page stays until Ctrl-C")
    while ending.signal is None:
        time.sleep(_GLANCE)
