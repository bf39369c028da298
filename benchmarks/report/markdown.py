"""Results in Markdown: `tables.md` beside the results, and the marked part of a document."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import tables
from benchmarks.report.goals import goals
from benchmarks.report.pictures import PICTURES, Picture
from benchmarks.report.results import GOALS_FILE, Results, labels
from benchmarks.report.tables import Table
from benchmarks.report.words import reasons

PART, GOALS_PART = "speed", "goals"


def tables_file(results: Results) -> str:
    """All pictures and tables, for the folder of the results."""
    blocks = ["# Results", _origin(results)]
    blocks += [_image(picture, ".") for picture in drawn(results)]
    for table in all_tables(results):
        blocks += [f"## {table.title}", table.note, tables.markdown(table)]
    why = reasons(results.workloads)
    if why:
        blocks += ["## Without a time", "\n".join(f"* {reason}" for reason in why)]
    return "\n\n".join(blocks) + "\n"


class Run(NamedTuple):
    """Results, and where they lie, seen from a document; `goals` are those of a later run, None where there is none."""

    results: Results
    folder: str
    goals: Results | None = None


def speed_part(*runs: Run) -> str:
    """The pictures and tables of a document, those of several processors beside each other.

    Raises:
        ValueError: The results hold no whole network.
    """
    everyone = [run.results for run in runs]
    speed, reached = tables.speed(*everyone), goals(*everyone)
    if any(run.goals for run in runs):  # the part on goals says it
        reached = reached._replace(rows=())
    if not speed:
        raise ValueError("expected results with whole networks for the document, got none that was timed")
    pictures = [picture for picture in PICTURES if any(picture in drawn(results) for results in everyone)]
    blocks = [image for picture in pictures[:1] for image in _images(picture, runs)]
    for table in ([reached] if reached.rows else []) + speed:
        blocks += [f"{table.title}: {table.note[0].lower()}{table.note[1:]}", tables.markdown(table)]
    blocks += [image for picture in pictures[1:] for image in _images(picture, runs)]
    blocks += [f"{_origin(run.results)} See [all numbers]({run.folder}/tables.md)." for run in runs]
    return "\n\n".join(blocks)


def goals_part(*runs: Run) -> str:
    """Goals and times of whole networks, as later runs of the workloads that goals are set for give them."""
    found = [(run, run.goals) for run in runs if run.goals]
    later = [results for _, results in found]
    blocks = []
    for table in [goals(*later), *tables.speed(*later)] if later else []:
        blocks += [f"{table.title}: {table.note[0].lower()}{table.note[1:]}", tables.markdown(table)]
    blocks += [f"{_origin(results)} See [{GOALS_FILE}]({run.folder}/{GOALS_FILE})." for run, results in found]
    return "\n\n".join(blocks)


def all_tables(results: Results) -> list[Table]:
    """The goals that the results say something about, and everything that was measured."""
    reached = goals(results)
    return [*([reached] if reached.rows else []), *tables.everything(results)]


def drawn(results: Results) -> list[Picture]:
    """The pictures that these results give."""
    return [picture for picture in PICTURES if picture.lacks(results) is None]


def with_parts(document: Path, runs: Sequence[Run]) -> str:
    """The document's text with the parts between their markers and in its own line ends, everything else as it is.

    The part on goals may be missing.
    """
    text = _with_part(document, document.read_bytes().decode(), PART, speed_part(*runs))
    if f"<!-- begin: {GOALS_PART} -->" in text:
        text = _with_part(document, text, GOALS_PART, goals_part(*runs))
    return text


def _with_part(document: Path, text: str, name: str, part: str) -> str:
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"{document}: expected one line {begin} and one line {end} after it, "
            f"got {text.count(begin)} and {text.count(end)}"
        )
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    lines = f"{begin}\n{part}\n{end}".replace("\n", _line_end(before + after))
    return f"{before}{lines}{after}"


def seen_from(document: Path, folder: Path) -> str:
    """The path of `folder` in a link of `document`."""
    return Path(os.path.relpath(folder.resolve(), document.resolve().parent)).as_posix()


def _line_end(text: str) -> str:
    """The line end that most lines have."""
    return "\r\n" if 2 * text.count("\r\n") > text.count("\n") else "\n"


def _origin(results: Results) -> str:
    return f"{results.machine}; {results.commit}."


def _images(picture: Picture, runs: Sequence[Run]) -> list[str]:
    """The picture of each run that gives it, under the name of its processor where there are several runs."""
    blocks = []
    for label, run in zip(labels([run.results for run in runs]), runs, strict=True):
        if picture in drawn(run.results):
            blocks += [f"{label}:"] if len(runs) > 1 else []
            blocks.append(_image(picture, run.folder))
    return blocks


def _image(picture: Picture, folder: str) -> str:
    return f"![{picture.title}]({folder}/{picture.file})"
