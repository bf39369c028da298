"""`hstl-fast embed`: the embeddings of silhouette sequences, as a file."""

from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.embedding import Settings, embed_inputs, load_network, network_options
from hstl_fast.cli.options import new_file
from hstl_fast.cli.output import SomeFailed
from hstl_fast.evaluation import save_embeddings


@click.command(short_help="Turn silhouette sequences into embeddings.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FILE.npz", type=new_file(".npz"), help="File to write.")
@network_options
def embed(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Embed silhouette sequences: folders of PNG, .npy, .npz, OpenGait .pkl, or folders of those.

    The file holds embeddings [N, parts, channels] float32, names, lengths and metadata (JSON). An input that cannot
    be read is left out and listed at the end, with exit code 1.
    """
    settings = Settings(**options)
    embeddings, failures = embed_inputs(load_network(settings), inputs, settings)
    if embeddings is not None:
        save_embeddings(output, embeddings)
        count, parts, channels = embeddings.vectors.shape
        frames = embeddings.lengths.sum()
        click.echo(f"{output}: {count} sequences, {frames} frames, {parts} parts x {channels} ({embeddings.preset})")
    if failures:
        raise SomeFailed(failures)
