"""The check of a packed file, byte for byte where bytes mean something."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from hstl_fast.data.chunks import arrow
from hstl_fast.data.merging import content_digest
from hstl_fast.data.pack_format import copies, load
from hstl_fast.data.packed import CUT_OFF, Packed, open_packed
from hstl_fast.data.parts import digest_of, places_of
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.left_out import LeftOut

_BLOCK = 2**20
DAMAGED_HEADER = "damaged copy of the header"
DAMAGED_SEQUENCE = "damaged sequence"
DAMAGED_ROWS = "damaged rows"
WRONG_DIGEST = "wrong digest of the content"


def verify_packed(path: str | os.PathLike[str], *, progress: Progress = silent) -> tuple[LeftOut, ...]:
    """Check all of a packed file: both copies of its header, every frame, and the rows as other Arrow readers see them.

    Args:
        path: The packed file.
        progress: Called with `verifying` and the number of sequences.

    Returns:
        What is damaged or missing, by the name of the sequence or the file; nothing if the file is as it was written.

    Raises:
        SilhouetteError: The file is no packed file, or neither copy of the header is whole.
        OSError: It cannot be read.
        ImportError: pyarrow is missing, from the extra `[data]`.
    """
    packed = open_packed(path)
    damage = [*_headers(Path(path)), *(each for each in packed.left_out if each.reason == CUT_OFF)]
    digest = hashlib.sha256()
    for index, item in enumerate(packed.items):
        try:
            digest.update(bytes.fromhex(digest_of(item, packed.reading(index).silhouettes)))
        except SilhouetteError as error:
            damage.append(LeftOut(item.name, DAMAGED_SEQUENCE, str(error)))
        progress("verifying", index + 1, len(packed))
    if not damage:
        damage += _parts(Path(path)) or _rows(Path(path), packed)
        found = content_digest(packed.partition, digest.digest())
        if found != packed.digest:
            damage.append(LeftOut(str(path), WRONG_DIGEST, f"expected {packed.digest}, got {found}"))
    return tuple(damage)


def _headers(path: Path) -> Iterator[LeftOut]:
    with path.open("rb") as file:
        found, troubles = copies(file)
    for trouble in troubles:
        yield LeftOut(str(path), DAMAGED_HEADER, trouble)
    if len(found) == 2 and (found[0].header != found[1].header or found[0].start != found[1].start):
        yield LeftOut(str(path), DAMAGED_HEADER, "the two copies differ")


def _parts(path: Path) -> list[LeftOut]:
    """Compare the checksums of all bytes of the rows, whatever they mean."""
    damage = []
    with path.open("rb") as file:
        contents = load(file, str(path))
        position = contents.start
        for size, check in contents.header["parts"]:
            file.seek(position)
            found, left = 0, size
            while left and (block := file.read(min(left, _BLOCK))):
                found, left = zlib.crc32(block, found), left - len(block)
            if left or found != check:
                span = f"bytes from {position} to {position + size}"
                damage.append(LeftOut(str(path), DAMAGED_ROWS, f"{span} have changed"))
            position += size
    return damage


def _rows(path: Path, packed: Packed) -> list[LeftOut]:
    """Compare the columns that other readers see with the index."""
    pa, row = arrow(), 0
    try:
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
            reader = pa.ipc.open_file(pa.BufferReader(whole))
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                batch.validate(full=True)
                seen = list(zip(*(batch.column(name).to_pylist() for name in ("label", "type", "view", "name"))))
                span = range(row, row + len(seen))
                expected = [tuple(packed.items[index]) for index in span]
                counts = [packed.num_frames(index) for index in span]
                places = [packed.place(index) for index in span]
                same = seen == expected and batch.column("num_frames").to_pylist() == counts
                if not same or places_of(batch, whole.address) != places:
                    detail = f"{len(seen)} rows from {packed.items[row].name} on disagree with the index"
                    return [LeftOut(str(path), DAMAGED_ROWS, detail)]
                row += len(seen)
    except (OSError, ValueError, LookupError, TypeError) as error:  # Arrow's errors are among them
        return [LeftOut(str(path), DAMAGED_ROWS, f"row {row} and those after it: {reason_of(error)}")]
    return [] if row == len(packed) else [LeftOut(str(path), DAMAGED_ROWS, f"expected {len(packed)} rows, got {row}")]
