"""`hstl-fast prepare`: a data set of many files becomes one packed file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.found import FoundOptions, found_options, open_input, refuse_same
from hstl_fast.cli.output import SomeFailed, progress_bar, warn
from hstl_fast.data import Packing, pack, verify_packed, write_report
from hstl_fast.data.found import counted
from hstl_fast.data.packed import open_packed
from hstl_fast.data.sequences import Sequences
from hstl_fast.silhouettes.folders import FILE_SUFFIXES
from hstl_fast.silhouettes.left_out import by_reason

_FRAME_BYTES = 64 * 64


@click.command(short_help="Pack a data set into one file.")
@click.argument("paths", nargs=-1, required=True, metavar="ROOT...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="PACK", type=click.Path(dir_okay=False, path_type=Path), help="Packed file to write."
)
@click.option("--verify", "verifies", is_flag=True, help="Check ROOT, a packed file, instead; nothing is written.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read; by default one for each core.")
@found_options
def prepare(paths: tuple[Path, ...], output: Path | None, verifies: bool, workers: int | None, **options: Any) -> None:
    """Align, check and pack the data sets at ROOT into one file, which all commands read.

    A sequence that cannot be read is left out and listed in the report, PACK.report.txt unless --report names
    another file. A run that was interrupted or killed goes on where it was when the same command is given again.
    """
    found = FoundOptions.take(options)
    if verifies:
        _verify(paths, output)
        return
    if output is None:
        raise click.UsageError("expected -o PACK, the file to write, or --verify")
    _check_output(output)
    refuse_same(output, [*paths, *([found.partition] if found.partition else [])], "--output")
    report = found.report or output.with_name(f"{output.name}.report.txt")
    refuse_same(report, [output, *paths], "--report")
    sequences = open_input(paths, dataclasses.replace(found, report=None))
    try:
        with progress_bar() as advance:
            packing = pack(sequences, output, workers=workers, strict=found.strict, progress=advance)
    except KeyboardInterrupt:
        warn("Interrupted: the same command goes on from here")
        raise
    write_report(report, sequences, packing.left_out)
    _say(packing, sequences, report)


def _check_output(output: Path) -> None:
    if output.suffix.lower() in FILE_SUFFIXES:
        raise click.BadParameter(f"expected a name such as casia-b.arrow; got {str(output)!r}", param_hint="--output")
    if not output.parent.is_dir():
        raise click.BadParameter(f"the folder {str(output.parent)!r} does not exist", param_hint="--output")


def _say(packing: Packing, sequences: Sequences, report: Path) -> None:
    for note in packing.notes:
        warn(f"Note: {note}")
    if packing.reused:
        warn(f"{packing.reused} sequences were packed by an earlier run that was interrupted")
    ratio = packing.frames * _FRAME_BYTES / packing.num_bytes
    rate = (packing.frames - packing.reused_frames) / packing.seconds
    click.echo(
        f"{packing.path}: {_counts(packing.sequences, packing.frames)}, {_size(packing.num_bytes)}, "
        f"{ratio:.1f} times smaller than its frames; {packing.seconds:.1f} s, {rate:.0f} frames a second"
    )
    reasons = by_reason([*sequences.left_out, *packing.left_out])
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.items()) or "nothing"
    click.echo(f"Left out: {listed}; the report is {report}")


def _counts(sequences: int, frames: int) -> str:
    return f"{counted(sequences, 'sequence', 'sequences')}, {counted(frames, 'frame', 'frames')}"


def _size(num_bytes: int) -> str:
    size, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def _verify(paths: tuple[Path, ...], output: Path | None) -> None:
    if output is not None or len(paths) != 1:
        raise click.UsageError("--verify: expected one packed file and no -o")
    with progress_bar() as advance:
        damage = verify_packed(paths[0], progress=advance)
    if damage:
        raise SomeFailed([f"{each.where}: {each.reason} ({each.detail})" for each in damage])
    packed = open_packed(paths[0])
    counts = _counts(len(packed), packed.total_frames)
    click.echo(f"{paths[0]}: {counts}, nothing is damaged ({packed.digest})")
