"""Embeddings of data sets: chunk by chunk, in ragged batches, whatever is done with them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.sequences import Sequences
from hstl_fast.evaluation import Embeddings, finite_rows
from hstl_fast.models import HSTL
from hstl_fast.network import Network
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes import SilhouetteError
from hstl_fast.silhouettes.collecting import CUT
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.silhouettes.rates import stored_rate
from hstl_fast.version import __version__

# So many sequences are in memory at a time, as silhouettes; the model itself bounds the frames of its batches. The last
# bits of an embedding depend on what is in its batch, and so on this number.
SEQUENCES_OF_A_CHUNK = 32
_NOT_FINITE = "the network gives an embedding with NaN or infinity"


def _unknown(digest: str) -> None:
    """No chunk was computed before."""


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
    """Count the chunks of a data set.

    Args:
        sequences: The data set.

    Returns:
        The number of chunks.
    """
    return -(-len(sequences) // SEQUENCES_OF_A_CHUNK)


def embed_all(
    model: HSTL,
    sequences: Sequences,
    max_frames: int | None = None,
    progress: Progress = silent,
) -> tuple[list[Chunk], NDArray[np.float32]]:
    """Embed a data set in this process alone, with the backend that is selected.

    Args:
        model: The network, in any mode.
        sequences: The data set, which is read chunk by chunk.
        max_frames: Use only the first so many frames of a sequence; None for all.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The chunks, without their vectors, and the vectors of all `[n, P, C]`.
    """
    vectors = np.empty((len(sequences), model.config.parts, model.config.channels), np.float32)
    chunks: list[Chunk] = []
    count = 0
    for number in range(chunk_count(sequences)):
        chunk = embed_chunk(model, sequences, number, max_frames)
        vectors[count : count + len(chunk.rows)] = chunk.vectors
        count += len(chunk.rows)
        chunks.append(dataclasses.replace(chunk, vectors=vectors[:0]))
        progress("embedding", min((number + 1) * SEQUENCES_OF_A_CHUNK, len(sequences)), len(sequences))
    return chunks, vectors[:count]


def describe(
    network: Network, sequences: Sequences, chunks: Iterable[Chunk], vectors: NDArray[np.float32]
) -> Embeddings:
    """Put names to the vectors of chunks.

    Args:
        network: The network that computed them.
        sequences: The data set.
        chunks: Its chunks, in order.
        vectors: The vectors of all chunks `[n, P, C]`.

    Returns:
        The embeddings.
    """
    chunks = list(chunks)
    fps = np.concatenate([chunk.fps for chunk in chunks])
    return Embeddings(
        vectors=vectors,
        names=tuple(sequences.items[row].name for chunk in chunks for row in chunk.rows),
        lengths=np.concatenate([chunk.lengths for chunk in chunks]),
        preset=network.preset,
        weights=network.weights,
        version=__version__,
        fps=None if np.isnan(fps).all() else fps,
    )


def embed_chunk(
    model: HSTL,
    sequences: Sequences,
    number: int,
    max_frames: int | None = None,
    known: Callable[[str], Chunk | None] = _unknown,
) -> Chunk:
    """Read and embed a chunk: some sequences that follow one another in the data set.

    The batches of the network, and with them the last bits of an embedding, depend on the chunk alone.

    Args:
        model: The network, in any mode.
        sequences: The data set.
        number: The number of the chunk, from 0.
        max_frames: Use only the first so many frames of a sequence; None for all.
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
        clips[row], rates[row] = reading.silhouettes[:max_frames], stored_rate(sequences.path(row))
        left_out += reading.left_out
        if len(clips[row]) < frames:
            cut = f"{len(clips[row])} of {frames} frames are used"
            left_out.append(LeftOut(sequences.items[row].name, CUT, cut))
    chunk = _embedded(model, clips, rates, known)
    for row in set(clips) - set(chunk.rows.tolist()):
        failures[row] = f"{sequences.items[row].name}: {_NOT_FINITE}"
    sentences = tuple(failures[row] for row in sorted(failures))
    return dataclasses.replace(chunk, size=len(rows), failures=sentences, left_out=tuple(left_out))


def _embedded(
    model: HSTL,
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
        vectors = model.embed(clips.values()).float().cpu().numpy()
    else:
        vectors = np.empty((0, model.config.parts, model.config.channels), np.float32)
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
