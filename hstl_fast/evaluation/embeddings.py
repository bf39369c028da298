"""Embedding files, which `hstl-fast embed` writes and `hstl-fast identify` reads."""

import json
import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_file

_ARRAYS = ("embeddings", "names", "lengths", "metadata")
_METADATA = ("preset", "weights", "version")
# An array that older files lack.
_RATES = "fps"
# So many embeddings are looked at at a time, for their values are as many again in memory.
_ROWS_AT_ONCE = 1024
# zipfile, zlib, numpy and json raise these for a file that is damaged or of another kind.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of `N` sequences with the names of the network that computed them.

    Attributes:
        vectors: Embeddings `[N, P, C]` float32.
        names: Names of the `N` sequences.
        lengths: Frames of each sequence that were used, int64 `[N]`.
        preset: The network, a key of `hstl_fast.PRESETS`.
        weights: `sha256:<digest of the checkpoint file>`, or `seed:<number>` for untrained weights.
        version: The version of hstl_fast.
        fps: Frames per second of each sequence, float64 `[N]`, NaN where it is unknown; None if no rate is known.
    """

    vectors: NDArray[np.float32]
    names: tuple[str, ...]
    lengths: NDArray[np.int64]
    preset: str
    weights: str
    version: str
    fps: NDArray[np.float64] | None = None

    @property
    def untrained(self) -> bool:
        """Whether the weights were random."""
        return self.weights.startswith("seed:")


def save_embeddings(path: str | os.PathLike[str], embeddings: Embeddings) -> None:
    """Write embeddings to a file, atomically.

    The file is an `.npz` with the arrays `embeddings`, `names`, `lengths` and `metadata`, a JSON text with preset,
    weights and version; and `fps` if it is not None.

    Args:
        path: The file to write; an earlier one is replaced.
        embeddings: The embeddings to write.

    Raises:
        ValueError: An embedding has NaN or infinity in it; the message names the sequence.
        OSError: The file cannot be written.
    """
    refuse_not_finite(embeddings)
    with atomic_file(Path(path)) as draft, draft.open("wb") as file:
        write_embeddings(file, embeddings, [embeddings.vectors])


def write_embeddings(file: IO[bytes], described: Embeddings, blocks: Iterable[NDArray[np.float32]]) -> None:
    """Write an embedding file whose vectors need not be in memory together.

    Args:
        file: The file to write, as `save_embeddings` would write it.
        described: All but the values of the vectors, of which only the shape is used.
        blocks: The vectors, `[n, P, C]` each, that are `described.vectors` one after another.

    Raises:
        ValueError: The blocks are not as many vectors as described, or have NaN or infinity in them.
        OSError: The file cannot be written.
    """
    count, *shape = described.vectors.shape
    metadata = {name: getattr(described, name) for name in _METADATA}
    arrays = {
        "names": np.array(described.names, dtype=np.str_),
        "lengths": described.lengths.astype(np.int64),
        "metadata": np.array(json.dumps(metadata, allow_nan=False)),
    }
    if described.fps is not None:
        arrays[_RATES] = described.fps.astype(np.float64)
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(member, header)
            written = 0
            for block in blocks:
                _check_block(block, shape, described.names[written : written + len(block)])
                for start in range(0, len(block), _ROWS_AT_ONCE):
                    member.write(np.ascontiguousarray(block[start : start + _ROWS_AT_ONCE], "<f4").data.cast("B"))
                written += len(block)
        if written != count:
            raise ValueError(f"blocks must hold {count} embeddings; got {written}")
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _check_block(block: NDArray[np.float32], shape: list[int], names: tuple[str, ...]) -> None:
    if list(block.shape[1:]) != shape or len(names) != len(block):
        raise ValueError(f"blocks must be [n, {', '.join(map(str, shape))}]; got {list(block.shape)}")
    finite = finite_rows(block)
    if not finite.all():
        raise ValueError(f"{names[finite.argmin()]}: embeddings must be finite; got NaN or infinity")


def load_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read a file that `save_embeddings` wrote.

    Args:
        path: The file to read.

    Returns:
        The embeddings.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no embedding file, is damaged, or has NaN or infinity in it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            rates = file.get(_RATES)
        metadata = json.loads(str(arrays["metadata"]))
        embeddings = Embeddings(
            vectors=arrays["embeddings"],
            names=tuple(str(name) for name in arrays["names"]),
            lengths=arrays["lengths"],
            fps=rates,
            **{name: str(metadata[name]) for name in _METADATA},
        )
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} is not an embedding file: expected the arrays {', '.join(_ARRAYS)}; got {error}"
        ) from error
    _check(path, embeddings)
    return embeddings


def is_embedding_file(path: str | os.PathLike[str]) -> bool:
    """Tell embedding files from other files, silhouettes in `.npz` among them.

    Args:
        path: Any path.

    Returns:
        Whether `path` is an `.npz` archive with an array named `embeddings`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return "embeddings.npy" in archive.namelist()
    except _UNREADABLE:
        return False


def check_comparable(gallery: Embeddings, probe: Embeddings) -> None:
    """Check that two sets of embeddings come from the same network.

    Args:
        gallery: One set of embeddings.
        probe: The other set.

    Raises:
        ValueError: Their presets or their weights differ.
    """
    for what in ("preset", "weights"):
        ours, theirs = getattr(gallery, what), getattr(probe, what)
        if ours != theirs:
            raise ValueError(f"gallery and probe must have the same {what} to be compared; got {ours} and {theirs}")


def finite_rows(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find the embeddings without NaN and infinity.

    Args:
        vectors: Embeddings `[N, P, C]`.

    Returns:
        Bool `[N]`, True where all values of an embedding are finite.
    """
    starts = range(0, len(vectors), _ROWS_AT_ONCE)
    finite = [np.isfinite(vectors[start : start + _ROWS_AT_ONCE]).all(axis=(1, 2)) for start in starts]
    return np.concatenate(finite) if finite else np.ones(0, np.bool_)


def refuse_not_finite(embeddings: Embeddings) -> None:
    """Check that all embeddings are finite.

    Args:
        embeddings: The embeddings to check.

    Raises:
        ValueError: An embedding has NaN or infinity in it; the message names the first such sequence.
    """
    finite = finite_rows(embeddings.vectors)
    if not finite.all():
        raise ValueError(f"{embeddings.names[finite.argmin()]}: embeddings must be finite; got NaN or infinity")


def _check(path: str | os.PathLike[str], embeddings: Embeddings) -> None:
    vectors, lengths = embeddings.vectors, embeddings.lengths
    if vectors.dtype != np.float32 or vectors.ndim != 3 or 0 in vectors.shape:
        raise ValueError(f"{path}: embeddings must be float32 [N, P, C]; got {vectors.dtype} {list(vectors.shape)}")
    if lengths.ndim != 1 or not len(vectors) == len(embeddings.names) == len(lengths):
        raise ValueError(
            f"{path}: expected one name and one length per embedding; "
            f"got {len(vectors)} embeddings, {len(embeddings.names)} names, lengths {list(lengths.shape)}"
        )
    rates = embeddings.fps
    if rates is not None and (rates.shape != lengths.shape or rates.dtype != np.float64):
        raise ValueError(
            f"{path}: fps must be float64 [N], one rate per embedding; got {rates.dtype} {list(rates.shape)}"
        )
    finite = finite_rows(vectors)
    if not finite.all():
        name = embeddings.names[finite.argmin()]
        raise ValueError(f"{path}: embeddings must be finite; got NaN or infinity in {(~finite).sum()}, such as {name}")
