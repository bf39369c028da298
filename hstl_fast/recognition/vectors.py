"""The embeddings of a gallery for searches: in memory, or those of a large gallery in a memory-mapped file.

The file is a cache, whose truth is the database: `NAME.vectors` beside an SQLite gallery, or a folder in the user's
cache folder for one on a server. It may be deleted at any time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_file, remove_abandoned
from hstl_fast.recognition import clock
from hstl_fast.recognition.errors import GalleryError, GalleryWarning
from hstl_fast.recognition.lazily import Lazily
from hstl_fast.recognition.vector_file import VectorFile

if TYPE_CHECKING:
    from hstl_fast.recognition.storage import queries
    from hstl_fast.recognition.storage.database import Database
    from hstl_fast.recognition.storage.queries import Index, State
else:
    queries = Lazily("hstl_fast.recognition.storage.queries")

# Embeddings of so many bytes are mapped; fewer are read into memory in a moment.
MAPPED_BYTES = 64 << 20
# Vectors that are read in one transaction.
_AT_ONCE = 256
# The latest change that the file may have vectors of.
_SEEN = "seen"


class _Replaced(Exception):
    """Another network came into use meanwhile."""


class Vectors:
    """The embeddings of a gallery, read from its database."""

    def __init__(self, database: Database) -> None:
        """Read nothing yet.

        Args:
            database: The gallery.
        """
        self._database = database
        self._files: dict[tuple[str, tuple[int, int]], VectorFile] = {}
        self._is_told = False

    def load(self) -> tuple[Index, NDArray[np.float32]]:
        """Read the latest state.

        Returns:
            The index of the gallery, and its vectors `[k, P, C]`, not to be written to.

        Raises:
            GalleryError: An embedding is damaged, or the database cannot be read.
        """
        while True:
            count, network = self._database.read(queries.size)
            shape = (0, 0) if network is None else (network.parts, network.channels)
            is_large = 4 * count * shape[0] * shape[1] >= MAPPED_BYTES
            found = self._mapped(shape) if is_large else None
            if found is None:
                index = self._read_index()
                vectors = self.read(index)
                found = None if vectors is None else (index, vectors)
            if found is not None:
                if not is_large:
                    self.remove_file()
                return found

    def _read_index(self) -> Index:
        return self._database.read(partial(queries.index, now=clock.now()))

    def read(self, index: Index) -> NDArray[np.float32] | None:
        """Read the vectors of an index into memory.

        Args:
            index: The index.

        Returns:
            The vectors `[k, P, C]`, or None if one of them was deleted meanwhile.

        Raises:
            GalleryError: An embedding is damaged, or the database cannot be read.
        """
        shape = (0, 0) if index.network is None else (index.network.parts, index.network.channels)
        vectors = np.empty((len(index.ids), *shape), np.float32)
        for start in range(0, len(vectors), _AT_ONCE):
            ids = index.ids[start : start + _AT_ONCE].tolist()
            found = self._database.read(partial(queries.vectors, ids=ids, shape=shape))
            if len(found) < len(ids):
                return None
            vectors[start : start + len(ids)] = [found[number] for number in ids]
        vectors.flags.writeable = False
        return vectors

    def folder(self) -> Path:
        """Name the folder of the memory-mapped file, which need not exist.

        Returns:
            The folder.
        """
        path = self._database.address.file
        if path is not None:
            # By whatever links it is opened, there is one folder, so that a deletion reaches it.
            path = Path(os.path.realpath(path))
            return path.with_name(f"{path.name}.vectors")
        cache = Path(os.getenv("XDG_CACHE_HOME") or Path.home() / ".cache")
        # A copy of a database has the same name in it.
        place = sha256(self._database.address.shown.encode()).hexdigest()[:16]
        return cache / "hstl_fast" / "galleries" / f"{self._database.read(queries.gallery)}-{place}"

    def remove_file(self) -> None:
        """Remove the memory-mapped file, if there is one; a search that has mapped it keeps what it sees."""
        folder = self.folder()
        with suppress(OSError):  # what others keep in a folder of this name stays
            for name in ("index", _SEEN):
                remove_abandoned(folder / name)
            for path in (*folder.glob("vectors-*.f32"), folder / "index", folder / _SEEN, folder / "lock"):
                path.unlink(missing_ok=True)
            folder.rmdir()

    def follow_deletion(self) -> None:
        """Let nothing that was deleted stay in the memory-mapped file, if there is one.

        Raises:
            GalleryError: An embedding is damaged, or the database cannot be read.
        """
        if self.folder().exists():
            self.load()

    def _mapped(self, shape: tuple[int, int]) -> tuple[Index, NDArray[np.float32]] | None:
        """Bring the file to the latest state; None where another network came into use, or no file can be written."""
        latest: list[Index] = []

        def ids() -> NDArray[np.int64]:
            latest[:] = [self._read_index()]
            used = latest[0].network
            if used is None or (used.parts, used.channels) != shape:
                raise _Replaced
            self._follow(folder, latest[0].state)
            return latest[0].ids

        def fetch(numbers: list[int]) -> Iterable[tuple[int, bytes]]:
            for start in range(0, len(numbers), _AT_ONCE):
                some = numbers[start : start + _AT_ONCE]
                found = self._database.read(partial(queries.vectors, ids=some, shape=shape))
                yield from ((number, np.asarray(vector, "<f4").tobytes()) for number, vector in found.items())

        folder = self.folder()
        try:
            vectors = self._file(folder, shape).synchronise(ids, fetch)
        except _Replaced:
            return None
        except GalleryError:
            raise
        except ValueError as error:
            raise GalleryError(f"{self._database.address.name}: {error}") from error
        except OSError as error:
            self._tell(folder, error)
            return None
        return latest[0], vectors

    def _file(self, folder: Path, shape: tuple[int, int]) -> VectorFile:
        gallery = self._database.read(queries.gallery)
        if (gallery, shape) not in self._files:
            self._files[gallery, shape] = VectorFile(folder, *shape, gallery=gallery)
        return self._files[gallery, shape]

    def _follow(self, folder: Path, state: State) -> None:
        """Write down which state the file is about to follow; called while its lock is held.

        The file begins anew if the state that it has followed is not in the past of this one: then the database was
        replaced, such as by a backup, and its numbers may stand for other vectors since. What is written down comes
        before the vectors, so that a process that is killed between the two leaves none of an unknown state.
        """
        seen, now = folder / _SEEN, f"{state.revision} {state.token}"
        before = seen.read_text(errors="replace") if seen.exists() else ""
        if before == now:
            return
        revision, _, token = before.partition(" ")
        if not revision.isdecimal() or self._database.read(partial(queries.token, revision=int(revision))) != token:
            (folder / "index").unlink(missing_ok=True)
        with atomic_file(seen, durable=True) as draft:
            draft.write_text(now)

    def _tell(self, folder: Path, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            warnings.warn(
                f"{folder}: cannot be written ({error.strerror}); embeddings are read into memory instead",
                GalleryWarning,
                stacklevel=2,
            )
