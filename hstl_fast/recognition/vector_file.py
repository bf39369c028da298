"""A gallery's embeddings in a file that every search maps into memory: a cache, whose truth is the database.

The folder has three files:

* `lock`, whose lock (`flock`) a process holds while it reads or changes the others;
* `vectors-TOKEN.f32`: the embeddings one after another, float32, little-endian, `[rows, P, C]`;
* `index`: a header of 64 bytes and 16 bytes for each row, little-endian. The header: `HSTLvec1`; P and C, uint32;
  TOKEN, 16 bytes; the first 16 bytes of the SHA-256 of the gallery's identity; 12 zeros; CRC-32 of the 60 bytes before.
  A row: the number of the embedding, int64, greater than the one before; CRC-32 of its values, uint32; a checksum of
  both and of the row's place, uint32.

Rows are in the order of their numbers. New ones are appended: first values, and when they are on the disk, entries of
the index. What a killed process left behind the last whole entry is cut. Any other change, such as a removal, writes a
new file of values and replaces the index, so that a file that is mapped somewhere never changes and what was removed is
in no file any more. An index or a file of values that is damaged or of another gallery is made anew.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_file, remove_abandoned
from hstl_fast.progress import Progress, silent

# Returns the numbers of all embeddings, int64, increasing.
Ids = Callable[[], NDArray[np.int64]]
# Returns embeddings by their numbers: pairs of a number and `P * C` values float32, little-endian, in any order.
Fetch = Callable[[list[int]], Iterable[tuple[int, bytes]]]

_MAGIC = b"HSTLvec1"
_HEADER = struct.Struct("<8sII16s16s12xI")
_ENTRY = np.dtype([("id", "<i8"), ("values", "<u4"), ("check", "<u4")])
# Bytes of embeddings that are fetched, and copied, at a time, and of those whose values are checked at the first use.
_AT_ONCE = 32 << 20
_CHECKED = 64 << 20


class VectorFile:
    """The embeddings of a gallery in a memory-mapped file, which follows the gallery's database.

    Several processes and threads may use one folder at once. Where the file system has no locks only one may.
    """

    def __init__(self, folder: Path, parts: int, channels: int, gallery: str = "") -> None:
        """Name the folder; nothing is read yet.

        Args:
            folder: The folder, which need not exist; it is made for this user alone.
            parts: Parts of an embedding.
            channels: Channels of a part.
            gallery: What tells this gallery from any other, such as a random number in its database: the numbers of
                embeddings begin anew in a new database.
        """
        self._folder = folder
        self._shape = (parts, channels)
        self._row_bytes = parts * channels * 4
        self._gallery = hashlib.sha256(gallery.encode()).digest()[:16]
        self._lock = threading.Lock()
        self._mapped: tuple[_Index, NDArray[np.float32]] | None = None

    def synchronise(self, ids: Ids, fetch: Fetch, progress: Progress = silent) -> NDArray[np.float32]:
        """Bring the file to the state of the database, and map it.

        Args:
            ids: Called for the numbers of all embeddings, perhaps several times; each call has to read the latest
                state of the database, and no process may undo what another has done since. An embedding never changes
                and its number is never used again.
            fetch: Called for the embeddings that the file lacks. An embedding that is deleted meanwhile may be left
                out: then `ids` is called again.
            progress: Called as `progress(stage, done, total)` with embeddings that are fetched.

        Returns:
            The embeddings, float32 `[k, P, C]`, a read-only memory map, in the order of the last result of `ids`. It
            stays whole whatever happens to the file.

        Raises:
            ValueError: An embedding has another size, NaN or infinity in it, or stays listed and cannot be fetched.
            OSError: The folder cannot be written; nothing is lost.
        """
        with self._lock, _exclusive(self._folder):
            missed: set[int] = set()
            while True:
                wanted = np.asarray(ids(), np.int64)
                _check_order(wanted)
                if missed and (again := missed & set(wanted.tolist())):
                    raise ValueError(
                        f"embedding {min(again)} must be in the database, which lists it; it was not found"
                    )
                index = self._fitting(wanted)
                self._remove_others(index.token)
                index = self._fill(index, wanted, fetch, progress)
                if len(index.entries) == len(wanted):
                    return self._map(index)
                missed = {int(wanted[len(index.entries)])}

    def _fitting(self, wanted: NDArray[np.int64]) -> _Index:
        """The index, after everything was removed that is not wanted or stands behind a place for what is missing."""
        known = self._mapped[0] if self._mapped else None
        found = self._read(known)
        if found is None:
            return self._start(_NOTHING, np.empty(0, np.bool_))
        index, is_whole = found
        ids = index.entries["id"]
        kept = np.isin(ids, wanted)
        missing = np.setdiff1d(wanted, ids[kept], assume_unique=True)
        if len(missing):
            kept &= ids < missing[0]
        if is_whole and kept.all():
            return index
        return self._start(index, kept)

    def _read(self, known: _Index | None) -> tuple[_Index, bool] | None:
        """Read the index, as far as it is right, and whether it is right to the end; None if there is none to use."""
        try:
            whole = (self._folder / "index").read_bytes()
            token = self._token(whole[: _HEADER.size])
            if token is None:
                return None
            values = self._values(token)
            there = values.stat().st_size // self._row_bytes
        except OSError:
            return None
        body = whole[_HEADER.size :]
        entries = np.frombuffer(body[: len(body) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
        right = np.logical_and.accumulate((entries["check"] == _checks(entries)) & _increasing(entries["id"]))
        right = entries[: min(int(np.count_nonzero(right)), there)]
        if (known is None or known.token != token) and not self._values_are_right(values, right):
            return None
        return _Index(token, right), len(right) == len(entries)

    def _token(self, header: bytes) -> str | None:
        """The token of a header; None if it is damaged or of another gallery."""
        if len(header) < _HEADER.size or zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
            return None
        magic, parts, channels, token, gallery, _ = _HEADER.unpack(header)
        is_ours = (magic, (parts, channels), gallery) == (_MAGIC, self._shape, self._gallery)
        return token.hex() if is_ours else None

    def _values_are_right(self, path: Path, entries: NDArray[Any]) -> bool:
        """Check the values of the last row and of as many others as are read in a moment: all, or evenly chosen."""
        count = min(len(entries), max(1, _CHECKED // self._row_bytes))
        with path.open("rb") as file:
            for row in np.unique(np.linspace(len(entries) - 1, 0, count).astype(np.int64)).tolist():
                file.seek(row * self._row_bytes)
                if zlib.crc32(file.read(self._row_bytes)) != entries["values"][row]:
                    return False
        return True

    def _start(self, old: _Index, kept: NDArray[np.bool_]) -> _Index:
        """Make a new file with the rows of the old one that are kept."""
        token = secrets.token_hex(16)
        with _private(self._values(token), "xb") as into:
            for first, end in _runs(kept):
                with self._values(old.token).open("rb") as source:
                    _copy(source, into, first * self._row_bytes, (end - first) * self._row_bytes)
            into.flush()
            os.fsync(into.fileno())
        entries = old.entries[kept]
        entries["check"] = _checks(entries)
        header = _HEADER.pack(_MAGIC, *self._shape, bytes.fromhex(token), self._gallery, 0)[:-4]
        with atomic_file(self._folder / "index", durable=True) as draft, _private(draft, "xb") as file:
            file.write(header + zlib.crc32(header).to_bytes(4, "little") + entries.tobytes())
        return _Index(token, entries)

    def _remove_others(self, token: str) -> None:
        """Remove what was replaced, and what killed processes have left behind."""
        remove_abandoned(self._folder / "index")
        for other in self._folder.glob("vectors-*.f32"):
            if other != self._values(token):
                with suppress(OSError):  # some systems keep a file that is mapped
                    other.unlink()

    def _fill(self, index: _Index, wanted: NDArray[np.int64], fetch: Fetch, progress: Progress) -> _Index:
        """Append what is wanted and not there yet, up to the first that cannot be fetched."""
        missing = wanted[len(index.entries) :].tolist()
        if not missing:
            return index
        at_once = max(1, _AT_ONCE // self._row_bytes)
        with self._values(index.token).open("r+b") as values, (self._folder / "index").open("r+b") as entries:
            values.truncate(len(index.entries) * self._row_bytes)
            entries.truncate(_HEADER.size + index.entries.nbytes)
            for start in range(0, len(missing), at_once):
                progress("copying embeddings", start, len(missing))
                some = missing[start : start + at_once]
                rows = self._fetched(some, fetch)
                added = np.empty(len(rows), _ENTRY)
                added["id"] = some[: len(rows)]
                added["values"] = [zlib.crc32(row) for row in rows]
                added["check"] = _checks(added, len(index.entries))
                _append(values, b"".join(rows))
                _append(entries, added.tobytes())
                index = _Index(index.token, np.concatenate([index.entries, added]))
                if len(rows) < len(some):
                    break
        progress("copying embeddings", len(missing), len(missing))
        return index

    def _fetched(self, ids: list[int], fetch: Fetch) -> list[bytes]:
        """The values of embeddings, up to the first that is not in the database any more."""
        found: dict[int, bytes] = {}
        for number, values in fetch(ids):
            if len(values) != self._row_bytes:
                raise ValueError(
                    f"embedding {number} must have {self._shape[0]} x {self._shape[1]} values float32, "
                    f"{self._row_bytes} bytes; got {len(values)} bytes"
                )
            if not np.isfinite(np.frombuffer(values, "<f4")).all():
                raise ValueError(f"embedding {number} must be finite; got NaN or infinity")
            found[number] = bytes(values)
        there = [number in found for number in ids]
        return [found[number] for number in ids[: there.index(False) if False in there else len(ids)]]

    def _map(self, index: _Index) -> NDArray[np.float32]:
        if self._mapped is not None:
            known, mapped = self._mapped
            if known.token == index.token and len(known.entries) == len(index.entries):
                return mapped
        shape = (len(index.entries), *self._shape)
        if len(index.entries) and sys.byteorder == "little":
            mapped = np.memmap(self._values(index.token), np.float32, "r", shape=shape)
        else:
            values = self._values(index.token).read_bytes()
            mapped = np.frombuffer(values, "<f4").astype(np.float32)[: int(np.prod(shape))].reshape(shape)
            mapped.flags.writeable = False
        self._mapped = index, mapped
        return mapped

    def _values(self, token: str) -> Path:
        return self._folder / f"vectors-{token}.f32"


class _Index(NamedTuple):
    """The token of the file of values, and the entries of its rows."""

    token: str
    entries: NDArray[Any]


_NOTHING = _Index("", np.empty(0, _ENTRY))


def _check_order(ids: NDArray[np.int64]) -> None:
    if ids.ndim != 1 or not _increasing(ids).all():
        raise ValueError("ids must return numbers of embeddings, 0 or more, in increasing order")


def _increasing(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each number is 0 or more and greater than the one before."""
    is_more: NDArray[np.bool_] = np.diff(ids, prepend=np.int64(-1)) > 0
    return is_more


def _checks(entries: NDArray[Any], first: int = 0) -> NDArray[np.uint32]:
    """Checksums of entries, the first of which is at the place `first`."""
    factor, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    mixed = entries["id"].astype(np.uint64)
    for part in (entries["values"].astype(np.uint64), np.arange(first, first + len(entries), dtype=np.uint64)):
        mixed = (mixed * factor) ^ part
        mixed ^= mixed >> shift
    return ((mixed * factor) >> shift).astype(np.uint32)


def _runs(kept: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The first row and the row after the last of every run of rows that are kept."""
    edges = np.flatnonzero(np.diff(kept, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _append(file: BinaryIO, data: bytes) -> None:
    """Write data at the end of a file, and wait until it is on the disk."""
    file.seek(0, os.SEEK_END)
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _copy(source: BinaryIO, into: BinaryIO, start: int, size: int) -> None:
    """Append a part of one file to another."""
    source.seek(start)
    while size:
        some = source.read(min(size, _AT_ONCE))
        if not some:
            raise OSError(f"{source.name}: expected {size} more bytes, got the end of the file")
        into.write(some)
        size -= len(some)


def _private(path: Path, mode: str) -> BinaryIO:
    """Open a file that, if it is made, is for this user alone."""
    return cast(BinaryIO, open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600)))


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there, as soon as no other process holds it."""
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _private(folder / "lock", "ab") as lock:
            try:
                import fcntl

                fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            except (ImportError, OSError):  # there are no such locks here
                pass
            with suppress(FileNotFoundError):  # the folder was removed meanwhile
                if os.path.samestat((folder / "lock").stat(), os.fstat(lock.fileno())):
                    yield
                    return
