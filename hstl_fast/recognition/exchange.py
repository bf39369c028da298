"""Galleries as files for others: what an export holds, and reading exports and embedding files.

An export is an embedding file, as `hstl-fast embed` writes it, an `.npz`: numpy reads it without us. `names` are
`<person>/<source>`. Two things are added: `gallery.json`, a text with all that the gallery knows about each recording,
in the order of the embeddings, and kept silhouettes as `silhouettes/<number>.npy`, uint8 `[T, 64, 64]`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation import Embeddings, load_embeddings
from hstl_fast.names import check_fields
from hstl_fast.recognition.clips import compressed, digest
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.names import check_name, clean_source
from hstl_fast.recognition.records import Fingerprint

# The number of what `gallery.json` holds.
FORMAT = 1
DESCRIPTION = "gallery.json"
_FIELDS = ("format", "preprocessing", "threshold", "false_accept_rate", "recordings")
_OF_RECORDING = ("person", "source", "frames", "fps", "created", "keep_until", "digest", "silhouettes")
_DIGEST = re.compile(r"(vector:)?[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Described:
    """A recording of a file.

    Attributes:
        person: The name of the person, checked.
        source: Where it comes from.
        frames: The number of its frames.
        fps: Frames a second, or None.
        created: When it was enrolled.
        keep_until: When it is to be deleted, or None.
        digest: What tells whether another recording is the same walk.
        silhouettes: The name of its silhouettes in the file, or None.
    """

    person: str
    source: str
    frames: int
    fps: float | None
    created: datetime
    keep_until: datetime | None
    digest: str
    silhouettes: str | None


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a file.

    Attributes:
        fingerprint: The network of the embeddings.
        recordings: The recordings.
        vectors: Their embeddings, float32 `[k, P, C]`.
        threshold: The threshold that was stored with the network, or None.
        false_accept_rate: Its false-accept rate, or None.
    """

    fingerprint: Fingerprint
    recordings: tuple[Described, ...]
    vectors: NDArray[np.float32]
    threshold: float | None = None
    false_accept_rate: float | None = None


class Imported(NamedTuple):
    """The numbers of an import.

    Attributes:
        people: People who were not in the gallery before.
        recordings: Recordings that were not.
        skipped: Recordings that were there already.
    """

    people: int
    recordings: int
    skipped: int


def vector_digest(vector: NDArray[np.float32]) -> str:
    """Compute what tells whether two recordings without silhouettes are the same: from their embeddings.

    Args:
        vector: The embedding `[P, C]`.

    Returns:
        `vector:` and a SHA-256 digest.
    """
    return f"vector:{sha256(np.ascontiguousarray(vector, '<f4').data).hexdigest()}"


def add_description(
    path: Path, contents: Mapping[str, Any], silhouettes: Iterator[tuple[str, NDArray[np.uint8]]]
) -> None:
    """Make an export of an embedding file.

    Args:
        path: The file, which is changed.
        contents: What `gallery.json` is to hold.
        silhouettes: Names in the file and silhouettes `[T, 64, 64]` uint8.
    """
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        text = json.dumps({"format": FORMAT, **contents}, indent=1, ensure_ascii=False, allow_nan=False)
        archive.writestr(DESCRIPTION, text)
        for name, frames in silhouettes:
            with archive.open(name, "w") as member:
                np.lib.format.write_array(member, frames, allow_pickle=False)


def described(recording: Described) -> dict[str, Any]:
    """Write a recording as `gallery.json` holds it.

    Args:
        recording: The recording.

    Returns:
        Its fields; times as ISO 8601.
    """
    until = recording.keep_until
    times = {"created": recording.created.isoformat(), "keep_until": None if until is None else until.isoformat()}
    return {**vars(recording), **times}


def read(path: Path) -> Contents:
    """Read an export, or an embedding file, whose people are the names up to the first slash.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: There is no such file.
        GalleryError: It is neither, is damaged, or a name in it is no name of a person.
    """
    try:
        embeddings = load_embeddings(path)
        with zipfile.ZipFile(path) as archive:
            text = archive.read(DESCRIPTION).decode() if DESCRIPTION in archive.namelist() else None
    except FileNotFoundError:
        raise
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise GalleryError(str(error)) from error
    try:
        return _of_embeddings(embeddings) if text is None else _of_export(embeddings, json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise GalleryError(f"{path}: {error}") from error


def read_silhouettes(path: Path, contents: Contents) -> Iterator[bytes | None]:
    """Read the silhouettes of an export.

    Args:
        path: The file.
        contents: What it holds.

    Yields:
        For each recording compressed silhouettes, or None.

    Raises:
        GalleryError: Silhouettes are missing or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for recording in contents.recordings:
            yield None if recording.silhouettes is None else _silhouettes(archive, path, recording)


def _silhouettes(archive: zipfile.ZipFile, path: Path, recording: Described) -> bytes:
    assert recording.silhouettes is not None
    try:
        with archive.open(recording.silhouettes) as member:
            frames = np.lib.format.read_array(member, allow_pickle=False)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise GalleryError(f"{path}: silhouettes of {recording.source!r} cannot be read: {error}") from error
    if frames.dtype != np.uint8 or frames.shape != (recording.frames, 64, 64) or digest(frames) != recording.digest:
        raise GalleryError(f"{path}: silhouettes of {recording.source!r} are not those that were exported")
    return compressed(frames)


def _of_embeddings(embeddings: Embeddings) -> Contents:
    now = datetime.now(timezone.utc)
    rates = np.full(len(embeddings.names), np.nan) if embeddings.fps is None else embeddings.fps
    recordings = []
    for name, frames, fps, vector in zip(embeddings.names, embeddings.lengths, rates, embeddings.vectors):
        person, _, rest = name.partition("/")
        rate = float(fps) if np.isfinite(fps) and fps > 0 else None
        where = (check_name(person), clean_source(rest or name))
        recordings.append(Described(*where, int(frames), rate, now, None, vector_digest(vector), None))
    return Contents(Fingerprint(embeddings.preset, embeddings.weights), tuple(recordings), embeddings.vectors)


def _of_export(embeddings: Embeddings, content: Any) -> Contents:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else content
        raise ValueError(f"{DESCRIPTION} must have the format {FORMAT}; got {found!r}")
    check_fields(DESCRIPTION, content, _FIELDS)
    rows = content["recordings"]
    if not isinstance(rows, list) or len(rows) != len(embeddings.names):
        raise ValueError(f"{DESCRIPTION} must describe the {len(embeddings.names)} recordings of the embeddings")
    recordings = tuple(_recording(i, row) for i, row in enumerate(rows))
    fingerprint = Fingerprint(embeddings.preset, embeddings.weights, str(content["preprocessing"]))
    limits = [None if content[name] is None else float(content[name]) for name in ("threshold", "false_accept_rate")]
    return Contents(fingerprint, recordings, embeddings.vectors, *limits)


def _recording(i: int, row: Any) -> Described:
    check_fields(f"recording {i} of {DESCRIPTION}", row, _OF_RECORDING)
    fps, frames, silhouettes = row["fps"], int(row["frames"]), row["silhouettes"]
    if frames < 1 or not (fps is None or 0 < float(fps) < float("inf")) or not _DIGEST.fullmatch(str(row["digest"])):
        raise ValueError(
            f"recording {i} of {DESCRIPTION} must have frames, a frame rate or null, and a digest; got {row}"
        )
    return Described(
        check_name(row["person"]),
        clean_source(row["source"]),
        frames,
        None if fps is None else float(fps),
        _moment(row["created"]),
        None if row["keep_until"] is None else _moment(row["keep_until"]),
        row["digest"],
        None if silhouettes is None else str(silhouettes),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
