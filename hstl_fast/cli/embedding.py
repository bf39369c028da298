"""Embeddings of silhouette files, for the commands that embed."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
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
from hstl_fast.data.sequences import Sequences
from hstl_fast.evaluation import Embeddings, finite_rows
from hstl_fast.network import Network
from hstl_fast.ops._dispatch import BACKENDS
from hstl_fast.silhouettes import SilhouetteError
from hstl_fast.silhouettes.collecting import CUT
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.silhouettes.rates import stored_rate

DEFAULT_PRESET = "casia-b"
DEFAULT_SEED = 2023
# So many sequences are in memory at a time, as silhouettes; the model itself bounds the frames of its batches. The last
# bits of an embedding depend on what is in its batch, and so on this number.
SEQUENCES_OF_A_CHUNK = 32
_NOT_FINITE = "the network gives an embedding with NaN or infinity"


@dataclass(frozen=True)
class Settings:
    """The values of the options that commands with a network share; None where the user gives none."""

    preset: str | None
    checkpoint: Path | None
    seed: int | None
    backend: str | None
    max_frames: int | None = None


def _unknown(digest: str) -> None:
    """No chunk was computed before."""


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of a network, which it gets as the fields of `Settings`."""
    return several(
        choice(
            "--preset",
            PRESETS,
            help="Network with random weights; by default that of the protocol for evaluate, for the others the "
            "trained one that comes along, which knows rendered walkers only.",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Released or trained weights (.pt); it also tells the preset.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            help=f"Seed of untrained weights of --preset; by default {DEFAULT_SEED}, {DEFAULT_PRESET}.",
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
        warn(
            "No --checkpoint: the weights are those that come along, trained on rendered walkers alone. "
            "Results are repeatable but say little about people."
        )
        return Network.shipped()
    preset = settings.preset or DEFAULT_PRESET
    seed = DEFAULT_SEED if settings.seed is None else settings.seed
    warn(
        f"No --checkpoint: the weights of {preset} are untrained (random, seed {seed}). "
        "Results are repeatable but say little about who is who."
    )
    return Network.from_seed(preset, seed)


@dataclass(frozen=True)
class Chunk:
    """The embeddings of some sequences of a data set, and what became of the others.

    Attributes:
        rows: The numbers of the sequences that were embedded, int64 `[n]`.
        vectors: Their embeddings `[n, P, C]` float32.
        lengths: Their frames, int64 `[n]`.
        fps: Their frames per second, float64 `[n]`, NaN where they are unknown.
        digest: A digest of the silhouettes.
        size: The number of sequences that belong to the chunk.
        failures: A sentence for each sequence that could not be embedded.
        left_out: What was left out of the sequences when they were read.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    lengths: NDArray[np.int64]
    fps: NDArray[np.float64]
    digest: str
    size: int
    failures: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def chunk_count(sequences: Sequences) -> int:
    """Count the chunks of a data set."""
    return -(-len(sequences) // SEQUENCES_OF_A_CHUNK)


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
    config = network.model.config
    vectors = np.empty((len(sequences), config.parts, config.channels), np.float32)
    chunks: list[Chunk] = []
    count = 0
    with chosen_backend(settings), progress_bar() as advance:
        for number in range(chunk_count(sequences)):
            chunk = embed_chunk(network, sequences, number, settings)
            vectors[count : count + len(chunk.rows)] = chunk.vectors
            count += len(chunk.rows)
            chunks.append(dataclasses.replace(chunk, vectors=vectors[:0]))
            advance("embedding", min((number + 1) * SEQUENCES_OF_A_CHUNK, len(sequences)), len(sequences))
    failures = [failure for chunk in chunks for failure in chunk.failures]
    if left_out is not None:
        left_out += [each for chunk in chunks for each in chunk.left_out]
    if not count:
        return None, failures
    return describe(network, sequences, chunks, vectors[:count]), failures


def describe(
    network: Network, sequences: Sequences, chunks: Iterable[Chunk], vectors: NDArray[np.float32]
) -> Embeddings:
    """Put names to the vectors of chunks in order."""
    chunks = list(chunks)
    fps = np.concatenate([chunk.fps for chunk in chunks])
    return Embeddings(
        vectors=vectors,
        names=tuple(sequences.items[row].name for chunk in chunks for row in chunk.rows),
        lengths=np.concatenate([chunk.lengths for chunk in chunks]),
        preset=network.preset,
        weights=network.weights,
        version=hstl_fast.__version__,
        fps=None if np.isnan(fps).all() else fps,
    )


def chosen_backend(settings: Settings) -> AbstractContextManager[Any]:
    """Select the backend of the options for the time of a block."""
    return nullcontext() if settings.backend is None else hstl_fast.use_backend(settings.backend)


def embed_chunk(
    network: Network,
    sequences: Sequences,
    number: int,
    settings: Settings,
    known: Callable[[str], Chunk | None] = _unknown,
) -> Chunk:
    """Read and embed a chunk: some sequences that follow one another in the data set.

    The batches of the network, and with them the last bits of an embedding, depend on the chunk alone.

    Args:
        network: The network.
        sequences: The data set.
        number: The number of the chunk, from 0.
        settings: The longest sequence.
        known: Gives the chunk whose sequences have this digest where it was computed before.

    Returns:
        The chunk.
    """
    clips: dict[int, NDArray[np.uint8]] = {}
    rates: dict[int, float] = {}
    failures: dict[int, str] = {}
    left_out: list[LeftOut] = []
    first = number * SEQUENCES_OF_A_CHUNK
    rows = range(first, min(first + SEQUENCES_OF_A_CHUNK, len(sequences)))
    for row in rows:
        try:
            reading = sequences.reading(row)
        except (ValueError, OSError, ImportError) as error:
            failures[row] = _naming(sequences.items[row].name, error)
            continue
        frames = len(reading.silhouettes)
        clips[row], rates[row] = reading.silhouettes[: settings.max_frames], stored_rate(sequences.path(row))
        left_out += reading.left_out
        if len(clips[row]) < frames:
            cut = f"{len(clips[row])} of {frames} frames are used"
            left_out.append(LeftOut(sequences.items[row].name, CUT, cut))
    chunk = _embedded(network, clips, rates, known)
    for row in set(clips) - set(chunk.rows.tolist()):
        failures[row] = f"{sequences.items[row].name}: {_NOT_FINITE}"
    sentences = tuple(failures[row] for row in sorted(failures))
    return dataclasses.replace(chunk, size=len(rows), failures=sentences, left_out=tuple(left_out))


def _embedded(
    network: Network,
    clips: dict[int, NDArray[np.uint8]],
    rates: dict[int, float],
    known: Callable[[str], Chunk | None],
) -> Chunk:
    digest = _digest(clips)
    if (chunk := known(digest)) is not None:
        return chunk
    rows, lengths = np.array(list(clips), np.int64), np.array([len(clip) for clip in clips.values()], np.int64)
    fps = np.array(list(rates.values()), np.float64)
    if clips:
        vectors = network.model.embed(clips.values()).float().numpy()
    else:
        vectors = np.empty((0, network.model.config.parts, network.model.config.channels), np.float32)
    finite = finite_rows(vectors)
    return Chunk(rows[finite], vectors[finite], lengths[finite], fps[finite], digest, len(rows))


def _digest(clips: dict[int, NDArray[np.uint8]]) -> str:
    whole = hashlib.sha256()
    for row, clip in clips.items():
        whole.update(f"{row} {clip.shape} ".encode())
        whole.update(np.ascontiguousarray(clip).data)
    return whole.hexdigest()


def _naming(name: str, error: Exception) -> str:
    """The sentence of an error, which readers begin with the file's path."""
    sentence = " ".join(str(error).split())
    return sentence if isinstance(error, SilhouetteError) or name in sentence else f"{name}: {sentence}"
