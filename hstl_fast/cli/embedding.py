"""Embeddings of silhouette files, for the commands that embed."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import hstl_fast
from hstl_fast import PRESETS
from hstl_fast.cli.options import choice, several
from hstl_fast.cli.output import progress_bar, warn
from hstl_fast.evaluation import Embeddings, finite_rows
from hstl_fast.network import Network
from hstl_fast.ops._dispatch import BACKENDS
from hstl_fast.silhouettes import find_sequences, read

DEFAULT_PRESET = "casia-b"
DEFAULT_SEED = 2023
# So many sequences are in memory at a time, as silhouettes; the model itself bounds the frames of its batches.
_SEQUENCES_AT_ONCE = 32
_NOT_FINITE = "the network gives an embedding with NaN or infinity"


@dataclass(frozen=True)
class Settings:
    """The values of the options that commands with a network share; None where the user gives none."""

    preset: str | None
    checkpoint: Path | None
    seed: int | None
    backend: str | None
    max_frames: int


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of a network, which it gets as the fields of `Settings`."""
    return several(
        choice("--preset", PRESETS, help=f"Network; by default {DEFAULT_PRESET}."),
        click.option(
            "--checkpoint",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Released or trained weights (.pt); it also tells the preset.",
        ),
        click.option(
            "--seed", type=click.IntRange(0, 2**63 - 1), help=f"Seed of untrained weights; by default {DEFAULT_SEED}."
        ),
        choice("--backend", BACKENDS, help="What computes the layers; by default auto."),
        click.option(
            "--max-frames",
            type=click.IntRange(min=1),
            default=720,
            show_default=True,
            help="Use the first so many frames of a sequence; bounds the memory.",
        ),
    )(command)


def load_network(settings: Settings) -> Network:
    """Load the network that the options select; a warning says where its weights are untrained.

    Raises:
        click.UsageError: The options contradict each other.
        ValueError: The checkpoint cannot be read.
    """
    if settings.checkpoint is not None:
        if settings.seed is not None:
            raise click.UsageError("--seed is for untrained weights; it cannot be combined with --checkpoint")
        return Network.from_checkpoint(settings.checkpoint, settings.preset)
    preset = settings.preset or DEFAULT_PRESET
    seed = DEFAULT_SEED if settings.seed is None else settings.seed
    warn(
        f"No --checkpoint: the weights of {preset} are untrained (random, seed {seed}). "
        "Results are repeatable but say little about who is who."
    )
    return Network.from_seed(preset, seed)


def embed_inputs(network: Network, inputs: Iterable[Path], settings: Settings) -> tuple[Embeddings | None, list[str]]:
    """Embed every sequence under files and folders in ragged batches.

    Args:
        network: The network.
        inputs: Files and folders.
        settings: The backend, and the longest sequence.

    Returns:
        The embeddings, or None if there are none, and a sentence for each sequence that cannot be read or whose
        embedding has NaN or infinity in it.
    """
    failures: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    lengths: dict[str, int] = {}
    sequences = find_sequences(inputs)
    chosen = nullcontext() if settings.backend is None else hstl_fast.use_backend(settings.backend)
    with chosen, progress_bar() as advance:
        for start in range(0, len(sequences), _SEQUENCES_AT_ONCE):
            group = sequences[start : start + _SEQUENCES_AT_ONCE]
            clips = _read(group, settings.max_frames, failures)
            if clips:
                embedded = network.model.embed(clips.values()).float().numpy()
                finite = finite_rows(embedded)
                vectors.append(embedded[finite])
                failures += [f"{name}: {_NOT_FINITE}" for name, good in zip(clips, finite, strict=True) if not good]
                lengths |= {name: len(clip) for (name, clip), good in zip(clips.items(), finite, strict=True) if good}
            advance("embedding", start + len(group), len(sequences))
    if not lengths:
        return None, failures
    embeddings = Embeddings(
        vectors=np.concatenate(vectors),
        names=tuple(lengths),
        lengths=np.array(list(lengths.values()), dtype=np.int64),
        preset=network.preset,
        weights=network.weights,
        version=hstl_fast.__version__,
    )
    return embeddings, failures


def _read(sequences: Iterable[tuple[str, Path]], max_frames: int, failures: list[str]) -> dict[str, NDArray[np.uint8]]:
    clips = {}
    for name, path in sequences:
        try:
            clips[name] = read(path)[:max_frames]
        except (ValueError, OSError, ImportError) as error:
            failures.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    return clips
