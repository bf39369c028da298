"""Options and messages of all commands that read data sets: what was found, and what was left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from hstl_fast.cli.options import choice, several
from hstl_fast.cli.output import warn
from hstl_fast.data.found import check_nothing_left_out, summarise, write_report
from hstl_fast.data.layouts import LAYOUTS
from hstl_fast.data.opening import open_together
from hstl_fast.data.sequences import Sequences
from hstl_fast.silhouettes.folders import FILE_SUFFIXES, PICTURE_SUFFIXES
from hstl_fast.silhouettes.left_out import LeftOut, by_reason

_Function = TypeVar("_Function", bound=Callable[..., Any])
OPTION_NAMES = ("layout", "partition", "pattern", "strict", "report")


@dataclass(frozen=True)
class FoundOptions:
    """The values of the options of `found_options`."""

    layout: str = "auto"
    partition: Path | None = None
    pattern: str | None = None
    strict: bool = False
    report: Path | None = None

    @classmethod
    def take(cls, options: dict[str, Any]) -> FoundOptions:
        """Take the values out of the keyword arguments that a command gets, and leave the others."""
        found = cls(**{name: options.pop(name) for name in OPTION_NAMES})
        refuse_same(found.report, [found.partition] if found.partition else [], "--report")
        return found

    def given(self) -> list[str]:
        """Name the options that are given, as on a command line."""
        usual = FoundOptions()
        return [f"--{name}" for name in OPTION_NAMES if getattr(self, name) != getattr(usual, name)]


def refuse_same(written: Path | None, others: Sequence[Path], option: str) -> None:
    """Refuse a file to write that is another file of the command as well.

    Args:
        written: The file to write, or None.
        others: The other files.
        option: The option that names the file to write.

    Raises:
        click.BadParameter: They are one file.
    """
    if written is not None and any(os.path.realpath(written) == os.path.realpath(other) for other in others):
        raise click.BadParameter(f"expected a file of its own, got {str(written)!r} twice", param_hint=option)


def _report_file(_: click.Context, __: click.Parameter, report: Path | None) -> Path | None:
    """Refuse a report in place of data, or in no folder, before the work begins."""
    if report is None:
        return None
    if report.suffix.lower() in (*FILE_SUFFIXES, *PICTURE_SUFFIXES, ".arrow"):
        raise click.BadParameter(f"expected a name such as report.txt or report.json, got {str(report)!r}")
    if not report.parent.is_dir():
        raise click.BadParameter(f"the folder {str(report.parent)!r} does not exist")
    return report


def found_options(command: _Function) -> _Function:
    """Decorate a command with the options about finding data, which it gets as the fields of `FoundOptions`."""
    existing = click.Path(exists=True, dir_okay=False, path_type=Path)
    return several(
        choice(
            "--layout",
            ("auto", *LAYOUTS, "packed"),
            default="auto",
            show_default=True,
            help="How the folders are laid out.",
        ),
        click.option("--partition", metavar="FILE.json", type=existing, help="TRAIN_SET and TEST_SET of people."),
        click.option("--pattern", metavar="GLOB", help="Choose files of a modality by name, such as '*Sils_raw*'."),
        click.option("--strict", is_flag=True, help="Stop where anything would be left out."),
        click.option(
            "--report",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            callback=_report_file,
            help="List what was left out: text, or JSON if it ends in .json.",
        ),
    )(command)


def open_input(paths: Sequence[Path], options: FoundOptions | None = None, max_frames: int | None = None) -> Sequences:
    """Open one or several paths as one data set, print what was found to standard error, and write the report.

    Args:
        paths: Folders and files.
        options: The options of `found_options`; by default they are what they are when no option is given.
        max_frames: Read the first so many frames of a sequence.

    Returns:
        The data set.

    Raises:
        DataError: A path cannot be opened, or something was left out and `--strict` is given.
        click.BadParameter: The report is one of the paths.
    """
    options = options or FoundOptions()
    refuse_same(options.report, paths, "--report")
    sequences = open_together(paths, options.layout, options.partition, pattern=options.pattern, max_frames=max_frames)
    print_found(sequences)
    if options.report is not None:
        write_report(options.report, sequences)
    if options.strict:
        check_nothing_left_out(sequences)
    return sequences


def print_found(sequences: Sequences) -> None:
    """Print to standard error what a data set has, and what was left out of it by reason."""
    for line in summarise(sequences):
        warn(line.encode(errors="backslashreplace").decode())


def finish_input(sequences: Sequences, left_out: Iterable[LeftOut], options: FoundOptions) -> None:
    """Say what was left out while the sequences were read, and write the report again, with it.

    Args:
        sequences: The data set that `open_input` gave.
        left_out: What its readings left out.
        options: The options of `found_options`.

    Raises:
        DataError: Something was left out and `--strict` is given.
    """
    left_out = list(left_out)
    if left_out:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in by_reason(left_out).items())
        warn(f"Left out while reading: {reasons}{_hint(options)}")
    if options.report is not None:
        write_report(options.report, sequences, left_out)
    if options.strict:
        check_nothing_left_out(sequences, left_out)


def _hint(options: FoundOptions) -> str:
    """The option that lists what was left out, where the command has it and it was not given."""
    context = click.get_current_context(silent=True)
    has_option = context is not None and any(parameter.name == "report" for parameter in context.command.params)
    return " (--report FILE lists them)" if has_option and options.report is None else ""
