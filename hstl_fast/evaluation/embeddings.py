"""Embedding files: what `hstl-fast embed` writes and `hstl-fast identify` reads."""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_file

_ARRAYS = ("embeddings", "names", "lengths", "metadata")
_METADATA = ("preset", "weights", "version")
# What zipfile, zlib, numpy and json raise on files that are damaged or something else altogether.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N sequences and where they come from.

    vectors [N, P, C] float32; names and lengths (frames that were used, [N] int64) of the sequences; `weights`
    identifies the parameters: `sha256:<digest of the checkpoint file>` or `seed:<number>` for untrained ones;
    `version` is that of hstl_fast.
    """

    vectors: NDArray[np.float32]
    names: tuple[str, ...]
    lengths: NDArray[np.int64]
    preset: str
    weights: str
    version: str

    @property
    def untrained(self) -> bool:
        return self.weights.startswith("seed:")


def save_embeddings(path: str | os.PathLike[str], embeddings: Embeddings) -> None:
    """Write an `.npz` of embeddings, names, lengths and metadata (JSON: preset, weights, version), all or nothing.

    Raises ValueError for embeddings that `load_embeddings` would refuse because of NaN or infinity.
    """
    refuse_not_finite(embeddings)
    metadata = {name: getattr(embeddings, name) for name in _METADATA}
    with atomic_file(Path(path)) as draft, draft.open("wb") as file:
        np.savez(
            file,
            embeddings=embeddings.vectors.astype(np.float32),
            names=np.array(embeddings.names, dtype=np.str_),
            lengths=embeddings.lengths.astype(np.int64),
            metadata=np.array(json.dumps(metadata, allow_nan=False)),
        )


def load_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read a file of `save_embeddings`. Raises ValueError for anything else, FileNotFoundError if there is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
        metadata = json.loads(str(arrays["metadata"]))
        embeddings = Embeddings(
            vectors=arrays["embeddings"],
            names=tuple(str(name) for name in arrays["names"]),
            lengths=arrays["lengths"],
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
    """Whether `path` is an `.npz` archive with an array named embeddings; silhouettes in `.npz` have none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "embeddings.npy" in archive.namelist()
    except _UNREADABLE:
        return False


def check_comparable(gallery: Embeddings, probe: Embeddings) -> None:
    """Raise ValueError unless both were embedded by the same preset with the same weights."""
    for what in ("preset", "weights"):
        ours, theirs = getattr(gallery, what), getattr(probe, what)
        if ours != theirs:
            raise ValueError(f"gallery and probe must have the same {what} to be compared; got {ours} and {theirs}")


def finite_rows(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """`[N]` bool: which of the embeddings [N, P, C] have neither NaN nor infinity in them."""
    return np.asarray(np.isfinite(vectors).all(axis=(1, 2)))


def refuse_not_finite(embeddings: Embeddings) -> None:
    """Raise ValueError that names the first sequence whose embedding has NaN or infinity in it."""
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
    if not np.isfinite(vectors).all():
        raise ValueError(f"{path}: embeddings must be finite; got NaN or infinity")
