"""`hstl-fast tune`: measured tiles for the Triton kernels on this GPU, in place of those chosen by rule."""

from pathlib import Path
from typing import Any

import click
import torch

from hstl_fast import PRESETS
from hstl_fast.backends import triton
from hstl_fast.ops import _dispatch

FRAMES = 30
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@click.command(short_help="Measure what is fastest on this GPU.")
@click.option(
    "--preset", "presets", multiple=True, type=click.Choice([*PRESETS]), help="Only this network's layers; repeatable."
)
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice([*DTYPES]), help="bfloat16 is for float16, too; default both."
)
@click.option("--output", type=click.Path(path_type=Path), help="File to write instead of the one that is always read.")
def tune(presets: tuple[str, ...], dtypes: tuple[str, ...], output: Path | None) -> None:
    """Measure some twenty tiles for every GEMM of the networks, forward and backward, and keep the fastest.

    Nearly all of the time goes into compiling. From then on the triton backend uses the tiles on a GPU of this kind. A
    file named with --output is used where HSTL_FAST_TILES names it.
    """
    reason = _dispatch.why_not("arme", "triton", "cuda", torch.bfloat16)
    if reason is not None:
        raise click.ClickException(f"there is nothing to tune: {reason}")
    convolutions = [layer for name in presets or PRESETS for layer in PRESETS[name].convolutions(FRAMES)]
    path = triton.tune(convolutions, [DTYPES[name] for name in dtypes or DTYPES], _print, output)
    click.echo(f"written to {path}")


def _print(gemm: Any, dtype: torch.dtype, found: Any) -> None:
    best, rule = found.tried[found.best] * 1e3, found.tried[found.rule] * 1e3
    tile = " ".join(f"{name}={value}" for name, value in found.best._asdict().items())
    click.echo(f"{gemm.name:20} {str(dtype).removeprefix('torch.'):9} {rule:8.3f} ms by rule {best:8.3f} ms  {tile}")
