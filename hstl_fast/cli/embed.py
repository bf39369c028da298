"""`hstl-fast embed`: the embeddings of silhouette sequences, as a file."""

from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, load_network, network_options
from hstl_fast.cli.found import open_input
from hstl_fast.cli.options import new_file
from hstl_fast.cli.output import SomeFailed, progress_bar
from hstl_fast.cli.shards import Task, embed_to_file
from hstl_fast.distributed import Processes


@click.command(short_help="Turn silhouette sequences into embeddings.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FILE.npz", type=new_file(".npz"), help="File to write.")
@network_options
def embed(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Embed silhouette sequences: data sets, packed files, folders of PNG, .npy, .npz, OpenGait .pkl.

    The file holds embeddings [N, parts, channels] float32, names, lengths and metadata (JSON). An input that cannot
    be read is left out and listed at the end, with exit code 1. A run that was stopped is completed by the same
    command; `torchrun --nproc-per-node 2 -m hstl_fast embed ...` shares the work between processes.
    """
    settings = Settings(**options)
    processes = Processes.join()
    tasks: list[Task] = []
    processes.together(lambda: tasks.append(Task(load_network(settings), open_input(inputs), settings)))
    with progress_bar() as advance:
        embeddings, failures, _ = embed_to_file(output, tasks[0], processes, advance)
    if embeddings is not None:
        count, parts, channels = embeddings.vectors.shape
        frames = embeddings.lengths.sum()
        click.echo(f"{output}: {count} sequences, {frames} frames, {parts} parts x {channels} ({embeddings.preset})")
    if failures:
        raise SomeFailed(failures)
