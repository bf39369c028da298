"""Packed files: a data set in one file, of which any frames of any sequence are read without the others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.chunks import CHUNK, FRAME_BYTES, SIZE, checksum, chunks_of, codec
from hstl_fast.data.pack_format import Contents, left_out_from, load, partition_of
from hstl_fast.data.sequences import Sequences
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.io import Reading
from hstl_fast.silhouettes.left_out import LeftOut

LAYOUT = "packed"
# Chunks that are read by one call, at most.
_AT_ONCE = 256
# From so many wanted frames a chunk on, all chunks between the first and the last are read at once.
_DENSE = 4
CUT_OFF = "cut off the end of the packed file"


def open_packed(path: str | os.PathLike[str]) -> Packed:
    """Open a packed file; its header is read, and frames when they are asked for.

    Of a file that was cut short, the sequences that are whole can be read, and `left_out` lists the others. A
    sequence in which bytes were damaged raises a SilhouetteError when it is read. Nothing in the file is executed.

    Args:
        path: A file that `pack` wrote.

    Returns:
        The data set. It can be pickled and used in several processes and threads.

    Raises:
        SilhouetteError: The file is no packed file, or its header is damaged.
        OSError: The file cannot be read.
        ImportError: pyarrow is missing, from the extra `[data]`.
    """
    return Packed(path)


class Packed(Sequences):
    """A packed file.

    Attributes:
        digest: `sha256:` and the digest of names, labels, frames and partition, whatever the compression is.
        version: The version of hstl_fast that wrote it.
        num_bytes: The size of the file.
    """

    knows_lengths = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        self._file: BinaryIO | None = _open(self._path)
        self._identity = _identity(self._file)
        self._codec: Any = None
        contents = load(self._file, str(path))
        self.num_bytes = self._identity[0]
        self.digest: str = contents.header["digest"]
        self.version: str = contents.header["version"]
        self.source_layout: str = contents.header["layout"]
        self._places = _places(contents)
        whole = self._places.ends <= self.num_bytes
        items = contents.rows.items
        left_out = [*left_out_from(contents.header["left_out"]), *_cut(contents, whole, self.num_bytes)]
        self._rows = np.flatnonzero(whole)
        self._num_frames = contents.rows.num_frames
        self._left_out_of = {row: text for row, text in enumerate(contents.rows.left_out) if text}
        partition = partition_of(contents.header)
        notes = contents.header["notes"]
        super().__init__([items[row] for row in self._rows], str(path), LAYOUT, partition, left_out, notes)

    @property
    def total_frames(self) -> int:
        """The frames of all sequences."""
        return int(self._num_frames[self._rows].sum())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_codec": None}

    def __del__(self) -> None:
        file = self.__dict__.get("_file")
        if file is not None:
            file.close()

    def reading(self, index: int) -> Reading:
        """Read a sequence, with what was left out of it when it was packed.

        Args:
            index: Number of the sequence.

        Returns:
            Its silhouettes `[T, 64, 64]` uint8 and what was left out.

        Raises:
            SilhouetteError: Bytes of the sequence are damaged.
            IndexError: There is no such sequence.
            OSError: The file cannot be read.
        """
        row = self._row(index)
        frames = np.empty((self.num_frames(index), SIZE, SIZE), np.uint8)
        last = int(chunks_of(len(frames))) - 1
        for first in range(0, last + 1, _AT_ONCE):
            for chunk, part in self._chunks(index, first, min(last, first + _AT_ONCE - 1)):
                frames[chunk * CHUNK : (chunk + 1) * CHUNK] = part
        text = self._left_out_of.get(row)
        try:
            return Reading(frames, left_out_from(json.loads(text)) if text else ())
        except ValueError as error:
            raise self._damaged(index, "its list of what was left out is no JSON of that kind") from error

    def num_frames(self, index: int) -> int:
        """Count the frames of a sequence; nothing is read.

        Args:
            index: Number of the sequence.

        Returns:
            The number of frames that `read` gives.

        Raises:
            IndexError: There is no such sequence.
        """
        return int(self._num_frames[self._row(index)])

    def read_frames(self, index: int, frames: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Read some frames of a sequence; the chunks that hold none of them are not read.

        Args:
            index: Number of the sequence.
            frames: Numbers `[n]` of the frames, in any order, with repetitions; negative ones count from the end.

        Returns:
            The silhouettes `[n, 64, 64]` uint8.

        Raises:
            SilhouetteError: Bytes of the sequence are damaged.
            IndexError: There is no such sequence or frame.
            OSError: The file cannot be read.
        """
        wanted = self._checked(index, frames)
        result = np.empty((len(wanted), SIZE, SIZE), np.uint8)
        if not len(wanted):
            return result
        first, last = int(wanted[0]), int(wanted[-1])
        if last - first + 1 == len(wanted) and bool((wanted[1:] - wanted[:-1] == 1).all()):
            self._fill_consecutive(index, first, result)
        else:
            self._fill(index, wanted, result)
        return result

    def place(self, index: int) -> int:
        """Return where the chunks of a sequence begin in the file, in bytes.

        Args:
            index: Number of the sequence.

        Returns:
            The position of its first chunk.
        """
        return int(self._places.begins[self._places.first_chunk[self._row(index)]])

    def _fill_consecutive(self, index: int, first: int, result: NDArray[np.uint8]) -> None:
        stop = first + len(result)
        for chunk, part in self._chunks(index, first // CHUNK, (stop - 1) // CHUNK):
            begin = chunk * CHUNK
            low, high = max(first, begin), min(stop, begin + CHUNK)
            result[low - first : high - first] = part[low - begin : high - begin]

    def _fill(self, index: int, wanted: NDArray[np.intp], result: NDArray[np.uint8]) -> None:
        first, last = int(wanted.min()) // CHUNK, int(wanted.max()) // CHUNK
        if _DENSE * (last - first + 1) <= len(wanted):
            parts = np.concatenate([part for _, part in self._chunks(index, first, last)])
            np.take(parts, wanted - first * CHUNK, axis=0, out=result, mode="clip")
            return
        chunk_of = wanted // CHUNK
        needed = np.unique(chunk_of).tolist()
        runs = [run.tolist() for run in np.split(np.array(needed), np.flatnonzero(np.diff(needed) > 1) + 1)]
        for run in runs:
            for chunk, part in self._chunks(index, run[0], run[-1]):
                here = np.flatnonzero(chunk_of == chunk)
                result[here] = part[wanted[here] - chunk * CHUNK]

    def _checked(self, index: int, frames: NDArray[np.intp]) -> NDArray[np.intp]:
        count = self.num_frames(index)
        wanted = np.asarray(frames, dtype=np.intp)
        if wanted.ndim != 1:
            raise IndexError(f"frames: expected an array [n], got shape {list(wanted.shape)}")
        if not len(wanted):
            return wanted
        low, high = int(wanted.min()), int(wanted.max())
        if low < -count or high >= count:
            wrong = low if low < -count else high
            raise IndexError(f"frames: expected numbers below {count} in {self.items[index].name}, got {wrong}")
        return np.where(wanted < 0, wanted + count, wanted) if low < 0 else wanted

    def _row(self, index: int) -> int:
        return int(self._rows[index])

    def _chunks(self, index: int, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Read, check and decompress consecutive chunks of a sequence."""
        row, places = self._row(index), self._places
        base = int(places.first_chunk[row])
        frames_left = int(self._num_frames[row]) - first * CHUNK
        begins = places.begins[base + first : base + last + 1].tolist()
        sizes = places.sizes[base + first : base + last + 1].tolist()
        checks = places.checks[base + first : base + last + 1].tolist()
        data = memoryview(self._bytes(index, begins[0], begins[-1] + sizes[-1] - begins[0]))
        for chunk, (begin, size, check) in enumerate(zip(begins, sizes, checks), first):
            part = data[begin - begins[0] : begin - begins[0] + size]
            if checksum(part) != check:
                raise self._damaged(index, f"the checksum of frames from {chunk * CHUNK} on is wrong")
            count = min(CHUNK, frames_left)
            yield chunk, self._decompressed(index, part, count)
            frames_left -= count

    def _decompressed(self, index: int, chunk: memoryview, count: int) -> NDArray[np.uint8]:
        if self._codec is None:
            self._codec = codec()
        try:
            frames = self._codec.decompress(chunk, count * FRAME_BYTES)
        except (OSError, ValueError) as error:
            raise self._damaged(index, reason_of(error)) from error
        return np.frombuffer(frames, np.uint8).reshape(count, SIZE, SIZE)

    def _bytes(self, index: int, begin: int, size: int) -> bytes:
        # Reading instead of mapping: a bad disk, or a file cut short under a running process, raises and does not kill.
        file = self._file
        if file is None:
            file = _open(self._path)
            if _identity(file) != self._identity:
                file.close()
                raise SilhouetteError(f"{self.source}: expected the packed file that was opened, got another one there")
            self._file = file
        data = os.pread(file.fileno(), size, begin)
        while len(data) < size:
            more = os.pread(file.fileno(), size - len(data), begin + len(data))
            if not more:
                raise self._damaged(index, "the file was cut short since it was opened")
            data += more
        return data

    def _damaged(self, index: int, reason: str) -> SilhouetteError:
        return SilhouetteError(f"{self.source}: the sequence {self.items[index].name} is damaged ({reason})")


class _Places(NamedTuple):
    """Places of sequences (`ends`, `first_chunk`) and of chunks (`begins`, `sizes`, `checks`) in the file."""

    ends: NDArray[np.int64]
    first_chunk: NDArray[np.int64]
    begins: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    checks: NDArray[np.uint32]


def _places(contents: Contents) -> _Places:
    index = contents.rows
    chunks = chunks_of(index.num_frames)
    first = np.cumsum(chunks) - chunks
    before = np.concatenate([[0], np.cumsum(index.sizes, dtype=np.int64)])
    # Chunks of a sequence follow one another; sequences need not.
    shift = contents.start + index.offsets - before[first]
    ends = shift + before[first + chunks]
    return _Places(ends, first, np.repeat(shift, chunks) + before[:-1], index.sizes, index.checks)


def _cut(contents: Contents, whole: NDArray[np.bool_], size: int) -> Iterator[LeftOut]:
    end = contents.start + contents.header["bytes"]
    for row in np.flatnonzero(~whole):
        yield LeftOut(contents.rows.items[row].name, CUT_OFF, f"expected {end} bytes or more, got {size}")


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise SilhouetteError(f"{path}: expected a packed file, got a folder")
    return path.open("rb", buffering=0)


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
