"""Sightings, status and summary of `hstl-fast watch`, on a terminal, in a pipe or as JSON lines."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from io import FileIO

import click

from hstl_fast.data.found import counted
from hstl_fast.recognition.live.events import Sighting, Update
from hstl_fast.recognition.live.statistics import Statistics

# Seconds between two lines of status.
ON_TERMINAL, IN_PIPE = 1.0, 10.0
# Names that the summary lists, those with most tracks first.
_MOST_NAMES = 10
# Return to the beginning of the line and clear it.
_CLEAR = "\r\x1b[K"


class Lines:
    """Sightings on standard output, the rest on standard error; a terminal's last line shows the status.

    Args:
        json_file: A file that gets sightings as JSON lines, too, or None.
        json_alone: Whether standard output gets JSON lines, and nothing else.
        show_every: Seconds between two lines of status, 0 for none; None: 1 on a terminal, 10 in a pipe.
    """

    def __init__(self, json_file: FileIO | None, json_alone: bool, show_every: float | None) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._every = (ON_TERMINAL if self._on_terminal else IN_PIPE) if show_every is None else show_every
        self._file, self._json_alone = json_file, json_alone
        self._shown = time.monotonic()
        self._status = ""

    def sighting(self, sighting: Sighting) -> None:
        """Print a sighting."""
        if self._file is not None:
            append(self._file, as_line(sighting))
        self.clear()
        click.echo(_printable(as_line(sighting)), nl=False) if self._json_alone else click.echo(sentence(sighting))

    def status(self, update: Update) -> None:
        """Print the status where it is due."""
        now = time.monotonic()
        if not self._every or now - self._shown < self._every:
            return
        self._shown = now
        text = (
            f"frame {update.frame.number}: {update.fps:.1f} frames a second, delay {update.delay:.2f} s, "
            f"{update.dropped} dropped, {len(update.seen)} in sight"
        )
        if self._on_terminal:
            click.echo(f"{_CLEAR}{text}", err=True, nl=False)
            self._status = text
        else:
            click.echo(text, err=True)

    def say(self, text: str) -> None:
        """Print a sentence on standard error."""
        self.clear()
        click.echo(text, err=True)

    def result(self, text: str) -> None:
        """Print a sentence beside the sightings, or on standard error where those are JSON."""
        self.clear()
        with suppress(BrokenPipeError):
            click.echo(text, err=self._json_alone)

    def clear(self) -> None:
        """Take the status off the terminal."""
        if self._status:
            click.echo(_CLEAR, err=True, nl=False)
            self._status = ""


def append(file: FileIO, line: str) -> None:
    """Write a line to a file that is not buffered.

    Args:
        file: The file.
        line: The line, with its end.

    Raises:
        OSError: It cannot be written, such as on a full disk; the error names the file.
    """
    rest = memoryview(line.encode())
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from error


def as_line(sighting: Sighting) -> str:
    """Write a sighting as a line of JSON."""
    return json.dumps(sighting.as_json(), ensure_ascii=False, allow_nan=False) + "\n"


def _printable(line: str) -> str:
    """The line of JSON in ASCII where standard output knows no other letters of it: its own escapes are no JSON."""
    try:
        line.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(json.loads(line)) + "\n"
    return line


def sentence(sighting: Sighting) -> str:
    """Write a sighting for people, with the local time."""
    parts = [f"{sighting.last.astimezone():%H:%M:%S}  track {sighting.track}  {sighting.name or 'nobody'}"]
    if sighting.distance is not None:
        margin = "" if sighting.margin is None else f", margin {sighting.margin:.3f}"
        parts.append(f"distance {sighting.distance:.3f}{margin}")
    parts.append(counted(sighting.frames, "frame", "frames"))
    if sighting.ended:
        parts.append(f"gone after {(sighting.last - sighting.first).total_seconds():.1f} s")
    return "  ".join(parts)


def summary(statistics: Statistics, reconnections: int, bad_frames: int) -> str:
    """Write what a whole run brought.

    Args:
        statistics: Its figures.
        reconnections: How often the source was lost and found again.
        bad_frames: Frames that were black or had no picture.

    Returns:
        A few lines.
    """
    rate = "" if statistics.fps is None else f" ({statistics.fps:.1f} a second)"
    bad = f", {bad_frames} black or without picture" if bad_frames else ""
    lines = [
        f"{counted(statistics.frames, 'frame', 'frames')} in {statistics.seconds:.1f} s{rate}, "
        f"{statistics.dropped} dropped{bad}, {counted(reconnections, 'reconnection', 'reconnections')}"
    ]
    median, most = statistics.delay(0.5), statistics.delay(0.95)
    if median is not None and most is not None:
        lines.append(f"delay: {median:.3f} s (median), {most:.3f} s (95 %), {statistics.worst_delay:.3f} s (longest)")
    tracks = statistics.tracks
    told = [f"{name or 'nobody'} {count}" for name, count in tracks.most_common(_MOST_NAMES)]
    more = [f"{len(tracks) - _MOST_NAMES} more people"] if len(tracks) > _MOST_NAMES else []
    names = f": {', '.join(told + more)}" if told else ""
    lines.append(
        f"{counted(statistics.sightings, 'sighting', 'sightings')}, "
        f"{counted(tracks.total(), 'track', 'tracks')} with an answer{names}"
    )
    return "\n".join(lines)
