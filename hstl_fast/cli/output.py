"""Tables, files and progress bars: rich draws on a terminal, a pipe gets plain text."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hstl_fast.distributed import rank_and_size
from hstl_fast.files import FULL, atomic_file

Row = Sequence[str]


def print_table(headers: Row, rows: Sequence[Row]) -> None:
    """Print a table, without headers if all of them are empty; a pipe gets padded columns, and no text is cut off."""
    if sys.stdout.isatty():
        _print_rich(headers, rows)
        return
    widths = [max(len(row[column]) for row in [headers, *rows]) for column in range(len(headers))]
    for row in [headers, *rows] if any(headers) else rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def print_any_name() -> None:
    """Print what an encoding cannot hold as escapes: names of files may be no UTF-8, and a terminal may know ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def name_full_output(error: Exception) -> None:
    """Name standard output in an error of a full disk, if that is what cannot be written, and let it go."""
    if not isinstance(error, OSError) or error.errno not in FULL or error.filename is not None:
        return
    try:
        # After a failure there is nothing left to be flushed.
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        error.filename = "standard output"
        # What is left of it would fail again when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_file(path) as draft:
        draft.write_bytes(text.getvalue().encode(errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON, atomically, in ASCII: names of files may be no UTF-8."""
    with atomic_file(path) as draft:
        draft.write_bytes((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def warn(message: str) -> None:
    """Print a line to standard error."""
    click.echo(message, err=True)


class SomeFailed(click.ClickException):
    """Some inputs could not be used: the message lists them with the reasons; the exit code is 1."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__("\n".join([f"{len(failures)} failed:", *(f"  {failure}" for failure in failures)]))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


@contextmanager
def only_first_process_prints(rank: int | None = None) -> Iterator[None]:
    """Print nothing in this block where several processes work together and this is not the first of them.

    An error of such a process ends it with exit code 1; those that work together hear of it by `Processes.together`.

    Args:
        rank: The number of this process; None takes it from the variables of torchrun.
    """
    try:
        rank = rank_and_size()[0] if rank is None else rank
    except ValueError:  # `Processes.join` says so
        rank = 0
    if not rank:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except click.exceptions.Exit:
            raise
        except Exception as error:
            raise click.exceptions.Exit(1) from error


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function of (stage, done, total) that draws a bar per stage on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance


def _print_rich(headers: Row, rows: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False, show_header=any(headers))
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(table)
