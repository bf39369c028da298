"""Parts of a packed file that is being written: fixed ranges of its sequences, each finished or not there.

A part is a stream of Arrow record batches, `000000.arrows`, and a record, `000000.json`, which is written last and
has the digest of the stream. A part without its record is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.chunks import SIZE, arrow, checksum, compress
from hstl_fast.data.found import NOT_LOST
from hstl_fast.data.lost import refuse_lost_frames, refuse_lost_sequence
from hstl_fast.data.pack_format import END_OF_STREAM, PREFIX, left_out_text, schema
from hstl_fast.data.sequences import Item, Sequences
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.left_out import LeftOut

# Compressed bytes of a record batch, so that a part of long sequences is never in memory as a whole.
BATCH_BYTES = 2**23
_AT_ONCE = 1024
UNREADABLE = "sequence that cannot be read"
NO_TEXT = "name that is no Unicode text"


@dataclass
class PackedRow:
    """A sequence in a part.

    Attributes:
        item: Its label, type, view and name.
        num_frames: Its frames.
        sizes: Bytes of its chunks.
        checks: Their checksums.
        digest: SHA-256 of its names and frames, in hexadecimal digits.
        left_out: What was left out of it, as JSON, empty for nothing.
        offset: Where its first chunk is, in bytes after the schema of the part.
    """

    item: Item
    num_frames: int
    sizes: list[int]
    checks: list[int]
    digest: str
    left_out: str
    offset: int = 0


@dataclass
class Record:
    """The contents of a finished part.

    Attributes:
        rows: Its sequences.
        left_out: Sequences that could not be read.
        stamps: For each sequence of its range, what changes when its source changes.
        num_bytes: Bytes of its batches.
        check: Their checksum.
        digest: SHA-256 of its stream, in hexadecimal digits.
    """

    rows: list[PackedRow] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)
    num_bytes: int = 0
    check: int = 0
    digest: str = ""


class Job(NamedTuple):
    """The work that parts divide.

    Attributes:
        sequences: The data set.
        folder: Where the parts are.
        part_size: Sequences of a part.
        strict: Whether to stop at a sequence that cannot be read, or of which something is left out.
    """

    sequences: Sequences
    folder: Path
    part_size: int
    strict: bool

    @property
    def num_parts(self) -> int:
        """The number of parts."""
        return -(-len(self.sequences) // self.part_size)

    def span(self, part: int) -> range:
        """The sequences of a part."""
        return range(part * self.part_size, min(len(self.sequences), (part + 1) * self.part_size))

    def stream(self, part: int) -> Path:
        """The file with the rows of a part."""
        return self.folder / f"{part:06}.arrows"

    def record(self, part: int) -> Path:
        """The file with the record of a part."""
        return self.folder / f"{part:06}.json"


def write_part(job: Job, part: int) -> int:
    """Read the sequences of a part and write it.

    Args:
        job: The job.
        part: Number of the part.

    Returns:
        The number of sequences in its range.

    Raises:
        SilhouetteError: A sequence cannot be read, and the job is strict.
        OSError: The part cannot be written.
    """
    record, draft = Record(), job.folder / f"{part:06}.{os.getpid()}.tmp"
    try:
        with draft.open("wb") as file:
            _write_rows(job, part, record, file)
        _place_rows(draft, record)
        draft.replace(job.stream(part))
        write_whole(job.record(part), json.dumps(asdict(record)).encode())
    finally:
        draft.unlink(missing_ok=True)
    return len(job.span(part))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there with all of its bytes or not at all.

    It is not forced to the disk: what a loss of power leaves of a part is compared with the digest in its record.

    Args:
        path: The file.
        content: Its bytes.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_record(job: Job, part: int) -> Record | None:
    """Read the record of a part.

    Args:
        job: The job.
        part: Number of the part.

    Returns:
        The record, or None if the part is not finished.
    """
    try:
        values = json.loads(job.record(part).read_bytes())
        values["rows"] = [PackedRow(Item(*row.pop("item")), **row) for row in values["rows"]]
        values["left_out"] = [LeftOut(*each) for each in values["left_out"]]
        return Record(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_current(job: Job, part: int, record: Record) -> bool:
    """Tell whether a finished part holds what its sources hold now.

    Args:
        job: The job.
        part: Number of the part.
        record: Its record.

    Returns:
        False if a source has changed, or the stream of the part is not what was written.
    """
    if record.stamps != [stamp(job.sequences, index) for index in job.span(part)]:
        return False
    try:
        return _digest_of_file(job.stream(part)) == record.digest
    except OSError:
        return False


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def stamp(sequences: Sequences, index: int) -> str:
    """Describe the state of the file or folder of a sequence without opening it.

    Args:
        sequences: The data set.
        index: Number of the sequence.

    Returns:
        Size and time of the last change, or nothing where there is no path.
    """
    path = sequences.path(index)
    if path is None:
        return ""
    try:
        status = Path(path).stat()
    except OSError as error:
        return f"missing: {error.errno}"
    return f"{status.st_size} {status.st_mtime_ns}"


def batches(job: Job, part: int) -> Iterator[Any]:
    """Read the record batches of a part, one by one.

    Args:
        job: The job.
        part: Number of the part.

    Yields:
        The batches.
    """
    pa = arrow()
    with pa.memory_map(str(job.stream(part))) as source, pa.ipc.open_stream(source) as reader:
        yield from reader


class _Hashed:
    """A file that is written and hashed at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hash, self.closed = file, hashlib.sha256(), False

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True


def _write_rows(job: Job, part: int, record: Record, file: BinaryIO) -> None:
    pa, pending, held = arrow(), [], 0
    sink = _Hashed(file)
    with pa.ipc.new_stream(sink, schema()) as writer:
        for index in job.span(part):
            record.stamps.append(stamp(job.sequences, index))
            packed = _row(job, index, record)
            if packed is None:
                continue
            row, chunks = packed
            record.rows.append(row)
            pending.append((row, chunks))
            held += sum(row.sizes)
            if held >= BATCH_BYTES:
                writer.write_batch(_batch(pending))
                pending, held = [], 0
        if pending:
            writer.write_batch(_batch(pending))
    record.digest = sink.hash.hexdigest()


def _row(job: Job, index: int, record: Record) -> tuple[PackedRow, list[bytes]] | None:
    """Read a sequence and compress it; None, and a note in the record, if it cannot be read."""
    item = job.sequences.items[index]
    try:
        " ".join(item).encode()
    except UnicodeEncodeError:
        shown = item.name.encode(errors="backslashreplace").decode()
        _leave_out(job, record, LeftOut(shown, NO_TEXT, "expected file names in UTF-8"))
        return None
    try:
        reading = job.sequences.reading(index)
        refuse_lost_frames(item.name, reading.left_out)
        frames = _checked(reading.silhouettes)
        lost = [each for each in reading.left_out if each.reason not in NOT_LOST]
        if job.strict and lost:
            raise SilhouetteError(f"{len(lost)} left out, such as {_shown(lost[0])}")
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # one bad file of a million must not lose the others
        refuse_lost_sequence(item.name, error)
        _leave_out(job, record, LeftOut(item.name, UNREADABLE, str(error) or reason_of(error)))
        return None
    chunks = list(compress(frames))
    row = PackedRow(
        item=item,
        num_frames=len(frames),
        sizes=[len(chunk) for chunk in chunks],
        checks=[checksum(chunk) for chunk in chunks],
        digest=digest_of(item, frames),
        left_out=left_out_text(reading.left_out),
    )
    return row, chunks


def _leave_out(job: Job, record: Record, left_out: LeftOut) -> None:
    if job.strict:
        raise SilhouetteError(f"expected to leave out nothing, got {_shown(left_out)}")
    record.left_out.append(left_out)


def _shown(left_out: LeftOut) -> str:
    return f"{left_out.where}: {left_out.reason}" + (f" ({left_out.detail})" if left_out.detail else "")


def _checked(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    is_array = isinstance(frames, np.ndarray) and frames.dtype == np.uint8
    if not is_array or frames.shape[1:] != (SIZE, SIZE) or not len(frames):
        got = f"{getattr(frames, 'dtype', type(frames).__name__)} {list(getattr(frames, 'shape', ()))}"
        raise SilhouetteError(f"expected silhouettes [T, 64, 64] uint8 with T of 1 or more, got {got}")
    return frames


def digest_of(item: Item, frames: NDArray[np.uint8]) -> str:
    """Compute the digest of a sequence.

    Args:
        item: Its names.
        frames: Its silhouettes `[T, 64, 64]` uint8.

    Returns:
        SHA-256 of names and frames, in hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([*item, len(frames)]).encode())
    for start in range(0, len(frames), _AT_ONCE):
        digest.update(np.ascontiguousarray(frames[start : start + _AT_ONCE]).data)
    return digest.hexdigest()


def _batch(rows: list[tuple[PackedRow, list[bytes]]]) -> Any:
    pa, fields = arrow(), schema()
    items = [row.item for row, _ in rows]
    names = [pa.array([getattr(item, name) for item in items], pa.string()) for name in fields.names[:4]]
    counts = pa.array([row.num_frames for row, _ in rows], pa.int64())
    frames = pa.array([chunks for _, chunks in rows], fields.field("frames").type)
    return pa.record_batch([*names, counts, frames], schema=fields)


def _place_rows(path: Path, record: Record) -> None:
    """Find where the chunks of each row are, by the addresses of the mapped file."""
    pa = arrow()
    with path.open("rb") as file:
        head = file.read(PREFIX)
        start = PREFIX + int.from_bytes(head[4:], "little")
    record.num_bytes = path.stat().st_size - start - END_OF_STREAM
    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer()
        record.check = checksum(memoryview(whole)[start : start + record.num_bytes])
        rows = iter(record.rows)
        for batch in pa.ipc.open_stream(pa.BufferReader(whole)):
            for place in places_of(batch, whole.address):
                next(rows).offset = place - start


def places_of(batch: Any, origin: int) -> list[int]:
    """Find where the chunks of each row of a record batch begin.

    Args:
        batch: A record batch of rows, mapped.
        origin: The address of the beginning of its file.

    Returns:
        Bytes from there to the first chunk of each row.
    """
    frames = batch.column("frames")
    chunks = frames.values
    _, offsets, data = chunks.buffers()
    starts = np.frombuffer(offsets, np.int64)[chunks.offset :][np.asarray(frames.offsets)[:-1]]
    return [int(start) + data.address - origin for start in starts]
