"""`hstl-fast embed`: the embeddings of silhouette sequences, as a file."""

from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, load_network, network_options
from hstl_fast.cli.found import FoundOptions, finish_input, found_options, open_input, refuse_same
from hstl_fast.cli.options import choice, new_file
from hstl_fast.cli.output import SomeFailed, only_first_process_prints, progress_bar, warn
from hstl_fast.cli.shards import Task, embed_to_file
from hstl_fast.data.found import counted
from hstl_fast.data.partitions import PARTS, part_of
from hstl_fast.data.sequences import Sequences
from hstl_fast.distributed import Processes
from hstl_fast.silhouettes.collecting import CUT
from hstl_fast.silhouettes.left_out import LeftOut

# So many names of sequences that were cut are printed; a report lists all.
_NAMES_SHOWN = 3


@click.command(short_help="Turn silhouette sequences into embeddings.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FILE.npz", type=new_file(".npz"), help="File to write.")
@found_options
@choice("--part", PARTS, help="Embed only the people of this part of the partition.")
@network_options
def embed(inputs: tuple[Path, ...], output: Path, part: str | None, **options: Any) -> None:
    """Embed silhouette sequences: a data set, a packed file, .npy, .npz, OpenGait .pkl, folders of PNG.

    The file holds embeddings [N, parts, channels] float32, names, lengths and metadata (JSON). A sequence that cannot
    be read is left out and listed at the end, with exit code 1.

    A run that was stopped is completed by the same command. `torchrun --nproc-per-node 2 -m hstl_fast embed ...`
    shares the work between processes, and writes the same file.
    """
    with only_first_process_prints():
        found = FoundOptions.take(options)
        refuse_same(output, inputs, "--output")
        _embed(inputs, output, part, found, Settings(**options))


def _embed(inputs: tuple[Path, ...], output: Path, part: str | None, found: FoundOptions, settings: Settings) -> None:
    processes = Processes.join()
    tasks: list[Task] = []

    def prepare() -> None:
        network = load_network(settings)
        tasks.append(Task(network, _opened(inputs, found, settings, part), settings))

    processes.together(prepare)
    with progress_bar() as advance:
        embeddings, failures, left_out = embed_to_file(output, tasks[0], processes, advance)
    if processes.rank:
        return
    if embeddings is not None:
        count, parts, channels = embeddings.vectors.shape
        frames = embeddings.lengths.sum()
        counts = f"{counted(count, 'sequence', 'sequences')}, {counted(int(frames), 'frame', 'frames')}"
        click.echo(f"{output}: {counts}, {parts} parts x {channels} ({embeddings.preset})")
    _say_what_was_cut(left_out, settings)
    finish_input(tasks[0].sequences, left_out, found)
    if failures:
        raise SomeFailed(failures)


def _opened(inputs: tuple[Path, ...], found: FoundOptions, settings: Settings, part: str | None) -> Sequences:
    sequences = open_input(inputs, found, settings.max_frames)
    return sequences if part is None else part_of(sequences, part)


def _say_what_was_cut(left_out: list[LeftOut], settings: Settings) -> None:
    cut = [each.where for each in left_out if each.reason == CUT]
    if cut:
        shown = ", ".join(cut[:_NAMES_SHOWN]) + (", ..." if len(cut) > _NAMES_SHOWN else "")
        warn(f"Only the first {settings.max_frames} frames (--max-frames) of {len(cut)} sequences are used: {shown}")
