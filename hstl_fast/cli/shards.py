"""Embeddings of a data set by one process or several, which a later run completes if this one is stopped.

Beside the output, in a hidden folder, every chunk of sequences gets a file of its own as soon as it is embedded. When
all are there they are joined to the output, in order, and the folder is removed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hstl_fast
from hstl_fast.cli.embedding import Settings, chosen_backend
from hstl_fast.data.sequences import Sequences
from hstl_fast.distributed import Processes
from hstl_fast.embedding import Chunk, chunk_count, describe, embed_chunk
from hstl_fast.evaluation import Embeddings, write_embeddings
from hstl_fast.files import atomic_file, replace_file
from hstl_fast.network import Network
from hstl_fast.progress import Progress
from hstl_fast.silhouettes.left_out import LeftOut

# numpy and zipfile raise these for a file that is damaged or of another kind.
_UNREADABLE = (OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set to embed, and how.

    Attributes:
        network: The network.
        sequences: The data set.
        settings: The backend, and the longest sequence.
    """

    network: Network
    sequences: Sequences
    settings: Settings

    def key(self) -> str:
        """A digest of all that decides the embeddings, except the silhouettes."""
        network, weight = self.network, self.network.model.parts.weight
        version = (hstl_fast.__version__, network.preset, network.weights, str(weight.dtype), str(weight.device.type))
        whole = hashlib.sha256(json.dumps([version, self.settings.max_frames, self.settings.backend]).encode())
        for name in self.sequences.names:
            whole.update(json.dumps(name).encode())
        return whole.hexdigest()[:32]


def embed_to_file(
    output: Path, task: Task, processes: Processes, progress: Progress
) -> tuple[Embeddings | None, list[str], list[LeftOut]]:
    """Embed a data set and write an embedding file; all processes call this alike.

    What an earlier run with the same task embedded before it was stopped is not computed again, except where a
    sequence has changed since.

    Args:
        output: The file to write.
        task: What is to be embedded, and how.
        processes: This process and those that share the work.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        What was written, its vectors without their values, or None if there are no embeddings; a sentence for each
        sequence that could not be embedded; and what was left out of the sequences when they were read. All but the
        first process return nothing.

    Raises:
        BlockingIOError: Another run writes the same file.
        OSError: A file cannot be written.
        ValueError: The processes have different data, weights or versions.
        ProcessError: Another process failed.
    """
    target = Path(os.path.realpath(output))
    parts = target.parent / f".{target.name[:200]}.parts"
    folder = parts / task.key()
    total = len(task.sequences)
    with ExitStack() as held:

        def prepare() -> str:
            if processes.rank == 0:
                held.enter_context(_exclusive(parts, output))
                folder.mkdir(exist_ok=True)
            return folder.name

        if len(set(processes.together(prepare))) > 1:
            raise ValueError("expected the same data, weights and version in all processes, got different ones")
        found = processes.together(
            lambda: _embed_units(folder, task, processes, progress),
            lambda: progress("embedding", processes.count("sequences"), total),
        )
        if processes.rank:
            return None, [], []
        written = _join(folder, output, task)
        shutil.rmtree(parts, ignore_errors=True)
    failures = sorted(tuple(failure) for part in found for failure in part["failures"])
    left_out = sorted(tuple(each) for part in found for each in part["left_out"])
    return written, [sentence for _, _, sentence in failures], [LeftOut(*each) for _, _, *each in left_out]


@contextmanager
def _exclusive(parts: Path, output: Path) -> Iterator[None]:
    """Keep other runs from writing the same output; a folder without any part in it is removed in the end."""
    parts.mkdir(exist_ok=True)
    with (parts / "lock").open("w") as lock:
        if not _locked(lock.fileno()) or not _is_there(parts / "lock", lock.fileno()):
            raise BlockingIOError(f"{output}: expected no other run that writes this file, got one that is at work")
        try:
            yield
        finally:
            if not any(parts.glob("*/*.npz")):
                shutil.rmtree(parts, ignore_errors=True)


def _locked(descriptor: int) -> bool:
    """Take the lock of an open file; the system gives it back when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no such locks on this file system
        return True
    return True


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name: a run that ends removes it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _embed_units(folder: Path, task: Task, processes: Processes, progress: Progress) -> dict[str, Any]:
    """Embed the chunks that fall to this process, as far as their files are not there yet."""
    failures: list[tuple[int, int, str]] = []
    left_out: list[tuple[int, int, str, str, str]] = []
    count, total = chunk_count(task.sequences), len(task.sequences)
    with chosen_backend(task.settings):
        for number in processes.units(count):
            stored = _load(_file(folder, number))

            def known(digest: str, stored: Chunk | None = stored) -> Chunk | None:
                return stored if stored is not None and stored.digest == digest else None

            chunk = embed_chunk(task.network.model, task.sequences, number, task.settings.max_frames, known)
            if known(chunk.digest) is None:
                _save(_file(folder, number), chunk)
            failures += [(number, i, sentence) for i, sentence in enumerate(chunk.failures)]
            left_out += [(number, i, *each) for i, each in enumerate(chunk.left_out)]
            done = processes.count("sequences", chunk.size)
            progress("embedding", done, total)
    return {"failures": failures, "left_out": left_out}


def _join(folder: Path, output: Path, task: Task) -> Embeddings | None:
    """Write the output from the chunks' files, of which one is in memory at a time."""
    config = task.network.model.config
    files = [_file(folder, number) for number in range(chunk_count(task.sequences))]
    chunks = [_loaded(file, with_vectors=False) for file in files]
    count = sum(len(chunk.rows) for chunk in chunks)
    if not count:
        return None
    shape = (count, config.parts, config.channels)
    described = describe(task.network, task.sequences, chunks, np.broadcast_to(np.float32(0), shape))
    draft = folder / "joined"
    with draft.open("wb") as file:
        write_embeddings(file, described, (_loaded(each).vectors for each in files))
    replace_file(output, draft)
    return described


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _save(file: Path, chunk: Chunk) -> None:
    arrays = {name: getattr(chunk, name) for name in ("rows", "vectors", "lengths", "fps")}
    with atomic_file(file) as draft, draft.open("wb") as opened:
        np.savez(opened, digest=np.array(chunk.digest), size=np.array(chunk.size), **arrays)


def _load(file: Path) -> Chunk | None:
    """Read the file of a chunk; None if it is not there or cut short."""
    try:
        return _loaded(file)
    except _UNREADABLE:
        return None


def _loaded(file: Path, with_vectors: bool = True) -> Chunk:
    # numpy leaves a damaged file open that it opened itself
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        vectors: NDArray[np.float32] = arrays["vectors"] if with_vectors else np.empty((0, 0, 0), np.float32)
        return Chunk(
            rows=arrays["rows"],
            vectors=vectors,
            lengths=arrays["lengths"],
            fps=arrays["fps"],
            digest=str(arrays["digest"]),
            size=int(arrays["size"]),
        )
