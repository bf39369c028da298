"""Embeddings of silhouette files, for the commands that embed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import hstl_fast
from hstl_fast import PRESETS
from hstl_fast.cli.options import choice, several
from hstl_fast.cli.output import progress_bar, warn
from hstl_fast.data.sequences import Sequences
from hstl_fast.embedding import describe, embed_all
from hstl_fast.evaluation import Embeddings
from hstl_fast.network import Network
from hstl_fast.ops._dispatch import BACKENDS
from hstl_fast.silhouettes.left_out import LeftOut

DEFAULT_PRESET = "casia-b"
DEFAULT_SEED = 2023
SHIPPED_WEIGHTS = (
    "No --checkpoint: the weights are those that come along, trained on rendered walkers alone. "
    "Results are repeatable but say little about people."
)


@dataclass(frozen=True)
class Settings:
    """The values of the options that commands with a network share; None where the user gives none."""

    preset: str | None
    checkpoint: Path | None
    seed: int | None
    backend: str | None
    max_frames: int | None = None


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of a network, which it gets as the fields of `Settings`."""
    return several(
        choice(
            "--preset",
            PRESETS,
            help="Network with random weights, in place of the one that comes with the package, which was trained on "
            "rendered walkers. `evaluate` takes the network of its protocol.",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Released or trained weights (.pt); it also tells the preset.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            help=f"Seed of random weights ({DEFAULT_SEED}); without --preset they are those of {DEFAULT_PRESET}.",
        ),
        choice("--backend", BACKENDS, help="What computes the layers; by default auto."),
        click.option(
            "--max-frames",
            type=click.IntRange(min=1),
            show_default=True,
            help="Use only the first so many frames of a sequence.",
        ),
    )(command)


def load_network(settings: Settings) -> Network:
    """Load the network that the options select; a warning says where its weights know nothing about people.

    Raises:
        click.UsageError: The options contradict each other.
        ValueError: The checkpoint cannot be read.
    """
    if settings.checkpoint is not None:
        if settings.seed is not None:
            raise click.UsageError("--seed is for untrained weights; it cannot be combined with --checkpoint")
        return Network.from_checkpoint(settings.checkpoint, settings.preset)
    if settings.preset is None and settings.seed is None:
        warn(SHIPPED_WEIGHTS)
        return Network.shipped()
    preset = settings.preset or DEFAULT_PRESET
    seed = DEFAULT_SEED if settings.seed is None else settings.seed
    warn(
        f"No --checkpoint: the weights of {preset} are untrained (random, seed {seed}). "
        "Results are repeatable but say little about who is who."
    )
    return Network.from_seed(preset, seed)


def embed_sequences(
    network: Network, sequences: Sequences, settings: Settings, left_out: list[LeftOut] | None = None
) -> tuple[Embeddings | None, list[str]]:
    """Embed a data set in ragged batches, in this process alone.

    Args:
        network: The network.
        sequences: The data set, which is read chunk by chunk.
        settings: The backend, and the longest sequence.
        left_out: A list that gets what was left out of the sequences when they were read, or None.

    Returns:
        The embeddings, or None if there are none, and a sentence for each sequence that cannot be read or whose
        embedding has NaN or infinity in it.
    """
    with chosen_backend(settings), progress_bar() as advance:
        chunks, vectors = embed_all(network.model, sequences, settings.max_frames, advance)
    failures = [failure for chunk in chunks for failure in chunk.failures]
    if left_out is not None:
        left_out += [each for chunk in chunks for each in chunk.left_out]
    if not len(vectors):
        return None, failures
    return describe(network, sequences, chunks, vectors), failures


def chosen_backend(settings: Settings) -> AbstractContextManager[Any]:
    """Select the backend of the options for the time of a block."""
    return nullcontext() if settings.backend is None else hstl_fast.use_backend(settings.backend)
