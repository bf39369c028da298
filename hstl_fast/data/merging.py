"""The last step of packing: finished parts become the packed file."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hstl_fast.data.chunks import CHUNK, CODEC, arrow
from hstl_fast.data.lost import FEW_UNREADABLE, MOST_UNREADABLE
from hstl_fast.data.pack_format import (
    END_OF_STREAM,
    FORMAT,
    HEAD,
    MAGIC,
    PREFIX,
    Index,
    encode,
    footer_length,
    left_out_from,
    schema,
)
from hstl_fast.data.parts import UNREADABLE, Job, PackedRow, Record, batches, read_record
from hstl_fast.data.sequences import Item, Partition
from hstl_fast.progress import Progress
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.version import __version__

_STAGE = "writing"


class Merged(NamedTuple):
    """Counts, the digest of the content, and all that was left out of sequences."""

    sequences: int
    frames: int
    digest: str
    left_out: tuple[LeftOut, ...]


class _Gathered:
    """The index of all parts, gathered part by part."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.num_frames: list[int] = []
        self.offsets: list[int] = []
        self.texts: list[str] = []
        self.sizes: list[Any] = []
        self.checks: list[Any] = []
        self.unreadable: list[LeftOut] = []
        self.left_out: list[LeftOut] = []
        self.num_bytes = 0
        self.parts: list[list[int]] = []
        self.digest = hashlib.sha256()

    def add(self, record: Record) -> None:
        for row in record.rows:
            self._add_row(row)
        self.unreadable += record.left_out
        self.left_out += record.left_out
        self.num_bytes += record.num_bytes
        self.parts.append([record.num_bytes, record.check])

    def _add_row(self, row: PackedRow) -> None:
        self.items.append(row.item)
        self.num_frames.append(row.num_frames)
        self.offsets.append(self.num_bytes + row.offset)
        self.texts.append(row.left_out)
        self.sizes.append(np.array(row.sizes, np.uint32))
        self.checks.append(np.array(row.checks, np.uint32))
        self.digest.update(bytes.fromhex(row.digest))
        if row.left_out:
            self.left_out += left_out_from(json.loads(row.left_out))

    def index(self) -> Index:
        return Index(
            items=tuple(self.items),
            num_frames=np.array(self.num_frames, np.int64),
            offsets=np.array(self.offsets, np.int64),
            left_out=self.texts,
            sizes=np.concatenate(self.sizes),
            checks=np.concatenate(self.checks),
        )


def merge(job: Job, target: Path, progress: Progress) -> Merged:
    """Write the packed file from its finished parts, and put it in its place.

    Args:
        job: The job, whose parts are all finished.
        target: The packed file.
        progress: Called with the number of parts.

    Returns:
        What it holds.

    Raises:
        SilhouetteError: No sequence could be read, or too few.
        OSError: The file cannot be written.
    """
    gathered = _gather(job)
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "layout": job.sequences.layout,
        "partition": _partition(job.sequences.partition),
        "chunk": CHUNK,
        "codec": CODEC,
        "sequences": len(gathered.items),
        "frames": sum(gathered.num_frames),
        "bytes": gathered.num_bytes,
        "parts": gathered.parts,
        "digest": content_digest(job.sequences.partition, gathered.digest.digest()),
        "left_out": [list(each) for each in [*job.sequences.left_out, *gathered.unreadable]],
        "notes": list(job.sequences.notes),
    }
    draft = job.folder / "merged.tmp"
    try:
        _write(job, draft, header, gathered.index(), progress)
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return Merged(len(gathered.items), header["frames"], header["digest"], tuple(gathered.left_out))


def content_digest(partition: Partition | None, sequences: bytes) -> str:
    """Compute the digest of a packed file's content.

    Args:
        partition: The partition.
        sequences: SHA-256 of the digests of all sequences.

    Returns:
        `sha256:` and hexadecimal digits.
    """
    return "sha256:" + hashlib.sha256(json.dumps(_partition(partition)).encode() + sequences).hexdigest()


def _partition(partition: Partition | None) -> dict[str, list[str]] | None:
    return None if partition is None else {key: list(texts) for key, texts in partition._asdict().items()}


def _gather(job: Job) -> _Gathered:
    gathered = _Gathered()
    for part in range(job.num_parts):
        record = read_record(job, part)
        if record is None:
            raise SilhouetteError(f"{job.record(part)}: expected a finished part, got one that cannot be read")
        gathered.add(record)
    if not gathered.items:
        first = gathered.unreadable[0]
        raise SilhouetteError(
            f"{job.sequences.source}: expected sequences to pack, got {len(gathered.unreadable)} of which none can be "
            f"read; the first is {first.where}: {first.detail}"
        )
    _refuse_too_few(job, gathered.unreadable)
    return gathered


def _refuse_too_few(job: Job, left_out: list[LeftOut]) -> None:
    unreadable = [each for each in left_out if each.reason == UNREADABLE]
    total = len(job.sequences)
    if len(unreadable) <= max(FEW_UNREADABLE, MOST_UNREADABLE * total):
        return
    # They may be readable when the same command is given again.
    for part in range(job.num_parts):
        record = read_record(job, part)
        if record is None or any(each.reason == UNREADABLE for each in record.left_out):
            job.record(part).unlink(missing_ok=True)
    raise SilhouetteError(
        f"{job.sequences.source}: expected to read all sequences but for a tenth at most, got {len(unreadable)} of "
        f"{total} that cannot be read; nothing was replaced; the first is {unreadable[0].where}: {unreadable[0].detail}"
    )


def _write(job: Job, draft: Path, header: dict[str, Any], index: Index, progress: Progress) -> None:
    pa = arrow()
    with draft.open("wb") as file:
        with pa.ipc.new_file(file, schema(encode(header, index))) as writer:
            for part in range(job.num_parts):
                for batch in batches(job, part):
                    writer.write_batch(batch)
                progress(_STAGE, part + 1, job.num_parts)
        file.flush()
        os.fsync(file.fileno())
    _check_places(draft, header)


def _check_places(draft: Path, header: dict[str, Any]) -> None:
    """Check that the rows are where the index says, which was computed from the parts."""
    with draft.open("rb") as file:
        head = file.read(HEAD + PREFIX)
        size = os.fstat(file.fileno()).st_size
        start = HEAD + PREFIX + int.from_bytes(head[HEAD + 4 :], "little")
        end = size - footer_length(file, size) - len(MAGIC) - 4 - END_OF_STREAM
    if (start, end - start) != (int(header["start"]), header["bytes"]):
        expected = f"{header['bytes']} bytes of rows from {header['start']} on"
        raise RuntimeError(f"expected {expected}, pyarrow wrote {end - start} from {start} on")
