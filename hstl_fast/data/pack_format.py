"""The parts of a packed file: an Arrow IPC file with a row a sequence, whose schema carries an index of all rows.

The schema stands at the beginning and at the end of an Arrow IPC file, so one of the two copies of the index survives
a cut or a damaged byte. The index says where the chunks of each sequence are, and has their checksums.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.chunks import CHUNK, CODEC, arrow, chunks_of
from hstl_fast.data.sequences import Item, Partition
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.left_out import LeftOut

FORMAT = 1
MAGIC = b"ARROW1"
# What follows the magic, and what stands before a message: a continuation mark and the length of its metadata.
HEAD = len(MAGIC) + 2
PREFIX = 8
END_OF_STREAM = 8
HEADER_KEY, INDEX_KEY, CHECK_KEY = b"hstl_fast.header", b"hstl_fast.index", b"hstl_fast.check"
_COLUMNS = ("name", "label", "type", "view", "num_frames", "offset", "left_out", "sizes", "checks")


class Index(NamedTuple):
    """All that is known of the sequences of a packed file without reading their frames.

    Attributes:
        items: Their names.
        num_frames: `[N]` int64.
        offsets: `[N]` int64, where the first chunk of each begins, in bytes after the header.
        left_out: What was left out of each, as JSON, empty for nothing.
        sizes: Bytes of all chunks of all sequences, uint32.
        checks: Their checksums, uint32.
    """

    items: tuple[Item, ...]
    num_frames: NDArray[np.int64]
    offsets: NDArray[np.int64]
    left_out: Sequence[str]
    sizes: NDArray[np.uint32]
    checks: NDArray[np.uint32]


class Contents(NamedTuple):
    """A decoded header and where its file's rows begin.

    Attributes:
        header: The header, as `encode` was given it.
        rows: The index.
        start: Where the rows begin in the file.
    """

    header: dict[str, Any]
    rows: Index
    start: int


def schema(metadata: dict[bytes, bytes] | None = None) -> Any:
    """Make the Arrow schema of the rows.

    Args:
        metadata: What `encode` gives, or None for rows that are no packed file yet.

    Returns:
        The schema.
    """
    pa = arrow()
    names = [pa.field(name, pa.string(), nullable=False) for name in ("name", "label", "type", "view")]
    frames = pa.field("frames", pa.list_(pa.field("chunk", pa.large_binary(), nullable=False)), nullable=False)
    return pa.schema([*names, pa.field("num_frames", pa.int64(), nullable=False), frames], metadata=metadata)


def encode(header: dict[str, Any], index: Index) -> dict[bytes, bytes]:
    """Turn a header and an index into metadata of the schema.

    Args:
        header: Anything that JSON can hold; `start`, where the rows begin in the file, is added to it.
        index: The index.

    Returns:
        The metadata.
    """
    pa = arrow()
    ends = np.concatenate([[0], np.cumsum(chunks_of(index.num_frames))]).astype(np.int32)
    lists = [pa.ListArray.from_arrays(ends, pa.array(values, pa.uint32())) for values in (index.sizes, index.checks)]
    names = [pa.array([getattr(item, field) for item in index.items], pa.string()) for field in _COLUMNS[:4]]
    rest = [pa.array(index.num_frames, pa.int64()), pa.array(index.offsets, pa.int64())]
    table = pa.table([*names, *rest, pa.array(index.left_out, pa.string()), *lists], names=list(_COLUMNS))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    # Readers of Arrow in other languages want text.
    blob = base64.b64encode(sink.getvalue().to_pybytes())
    # The length of the schema is not protected by a checksum of its own, so the header says where the rows begin.
    header["start"] = f"{0:020}"
    header["start"] = f"{HEAD + len(schema(_checked(header, blob)).serialize()):020}"
    return _checked(header, blob)


def _checked(header: dict[str, Any], blob: bytes) -> dict[bytes, bytes]:
    text = json.dumps(header, sort_keys=True).encode()
    return {HEADER_KEY: text, INDEX_KEY: blob, CHECK_KEY: f"{zlib.crc32(blob, zlib.crc32(text)):08x}".encode()}


def load(file: BinaryIO, name: str) -> Contents:
    """Read the header and the index of a packed file, from its beginning or else from its end.

    Args:
        file: The file, open for reading.
        name: Its name for messages.

    Returns:
        What they hold.

    Raises:
        SilhouetteError: It is no packed file, of another format, or neither copy of the header is whole.
        OSError: It cannot be read.
    """
    contents, troubles = copies(file)
    if contents:
        return contents[0]
    kind = "one whose header is damaged" if _is_arrow(file) else "another file"
    raise SilhouetteError(f"{name}: expected a packed file of hstl_fast, got {kind} ({troubles[0]})")


def copies(file: BinaryIO) -> tuple[list[Contents], list[str]]:
    """Read both copies of the header and the index.

    Args:
        file: The file, open for reading.

    Returns:
        What the whole copies hold, and a sentence for each copy that cannot be used.

    Raises:
        OSError: The file cannot be read.
    """
    size, found, troubles = os.fstat(file.fileno()).st_size, [], []
    for copy in (_first_copy, _last_copy):
        try:
            found.append(copy(file, size))
        except (MemoryError, ImportError):
            raise
        # Damaged bytes can fail in any way; Arrow's own errors are OSErrors, too, but have no number.
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            troubles.append(str(error) if isinstance(error, _Unusable) else reason_of(error))
    return found, troubles


class _Unusable(ValueError):
    """A copy of the header cannot be used; the message says why."""


def _first_copy(file: BinaryIO, size: int) -> Contents:
    file.seek(0)
    head = file.read(HEAD + PREFIX)
    length = int.from_bytes(head[HEAD + 4 :], "little")
    if size < HEAD + PREFIX:
        raise _Unusable(f"it has {size} bytes")
    if not 0 < length <= size - HEAD - PREFIX:
        raise _Unusable("its beginning is no Arrow IPC file")
    file.seek(HEAD)
    pa = arrow()
    message = pa.py_buffer(file.read(PREFIX + length))
    header, index = _decode(pa.ipc.read_schema(message))
    start = HEAD + PREFIX + length
    if int(header["start"]) != start:
        raise _Unusable("the length of its header is wrong")
    return Contents(header, index, start)


def _last_copy(file: BinaryIO, size: int) -> Contents:
    length = footer_length(file, size)
    footer_start = size - len(MAGIC) - 4 - length
    file.seek(footer_start)
    # A reader of a file that holds nothing but its end sees the same schema; its rows are not asked for.
    pa = arrow()
    reader = pa.ipc.open_file(pa.py_buffer(MAGIC + bytes(HEAD - len(MAGIC)) + file.read()))
    header, index = _decode(reader.schema)
    start = footer_start - END_OF_STREAM - header["bytes"]
    if int(header["start"]) != start:
        raise _Unusable("it is not as long as its header says")
    return Contents(header, index, start)


def footer_length(file: BinaryIO, size: int) -> int:
    """Read how long the footer of an Arrow IPC file is.

    Args:
        file: The file, open for reading.
        size: Its size in bytes.

    Returns:
        Bytes of the footer.

    Raises:
        ValueError: The file does not end as an Arrow IPC file.
    """
    if size < HEAD + len(MAGIC) + 4:
        raise _Unusable(f"it has {size} bytes")
    file.seek(size - len(MAGIC) - 4)
    tail = file.read()
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= size - HEAD - len(MAGIC) - 4:
        raise _Unusable("its end is no Arrow IPC file")
    return length


def _decode(found: Any) -> tuple[dict[str, Any], Index]:
    metadata = found.metadata or {}
    if not {HEADER_KEY, INDEX_KEY, CHECK_KEY} <= set(metadata):
        raise _Unusable("an Arrow file without the header of a packed file")
    text, blob = metadata[HEADER_KEY], metadata[INDEX_KEY]
    if metadata[CHECK_KEY] != f"{zlib.crc32(blob, zlib.crc32(text)):08x}".encode():
        raise _Unusable("the checksum of its header is wrong")
    header = json.loads(text)
    _check_header(header)
    pa = arrow()
    if not found.equals(schema()):
        raise _Unusable("its columns are others")
    table = pa.ipc.open_stream(base64.b64decode(blob, validate=True)).read_all()
    table.validate(full=True)
    index = _index(table)
    if len(index.items) != header["sequences"] or int(index.num_frames.sum()) != header["frames"]:
        raise _Unusable("its header and its index disagree")
    if (index.offsets > header["bytes"]).any():
        raise _Unusable("its index places a sequence behind the end")
    return header, index


def _check_header(header: Any) -> None:
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise _Unusable("its header is none")
    if header["format"] != FORMAT:
        raise _Unusable(f"format {header['format']}, but this version of hstl_fast reads format {FORMAT}")
    if header.get("chunk") != CHUNK or header.get("codec") != CODEC:
        raise _Unusable(f"chunks of {header.get('chunk')} frames by {header.get('codec')}, not of {CHUNK} by {CODEC}")
    kinds = {"version": str, "layout": str, "digest": str, "start": str, "sequences": int, "frames": int, "bytes": int}
    for key, kind in {**kinds, "left_out": list}.items():
        if not isinstance(header.get(key), kind):
            raise _Unusable(f"its header has no {key}")
    parts = header.get("parts") or []
    pairs = isinstance(parts, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in parts)
    if not pairs or not all(isinstance(number, int) and number >= 0 for pair in parts for number in pair):
        raise _Unusable("its header has no parts")
    if not _is_texts(header.get("notes")):
        raise _Unusable("its header has no notes")
    partition_of(header)
    left_out_from(header["left_out"])


def _index(table: Any) -> Index:
    if tuple(table.column_names) != _COLUMNS:
        raise _Unusable("its index has other columns")
    columns = {name: table.column(name).combine_chunks() for name in _COLUMNS}
    if any(column.null_count for column in columns.values()):
        raise _Unusable("its index has gaps")
    known: dict[str, str] = {}
    texts = (columns[field].to_pylist() for field in ("label", "type", "view"))
    shared = [[known.setdefault(text, text) for text in column] for column in texts]
    items = tuple(map(Item, *shared, columns["name"].to_pylist())) if len(table) else ()
    lists = [columns[name] for name in ("sizes", "checks")]
    sizes, checks = (np.asarray(each.flatten(), np.uint32) for each in lists)
    num_frames, offsets = (np.asarray(columns[name], np.int64) for name in ("num_frames", "offset"))
    counts = [np.diff(np.asarray(each.offsets, np.int64)) for each in lists]
    expected = chunks_of(num_frames)
    if (num_frames < 1).any() or any(not np.array_equal(each, expected) for each in counts):
        raise _Unusable("its index has sequences whose chunks are not as many as their frames need")
    if (offsets < 0).any() or len({item.name for item in items}) != len(items):
        raise _Unusable("its index names a sequence twice or places one before the beginning")
    return Index(items, num_frames, offsets, columns["left_out"].to_pylist(), sizes, checks)


def _is_arrow(file: BinaryIO) -> bool:
    file.seek(0)
    head = file.read(len(MAGIC))
    file.seek(max(0, os.fstat(file.fileno()).st_size - len(MAGIC)))
    return MAGIC in (head, file.read())


def partition_of(header: dict[str, Any]) -> Partition | None:
    """Read the partition out of a header.

    Args:
        header: The header.

    Returns:
        The partition, or None if there is none.

    Raises:
        ValueError: It is no partition.
    """
    lists = header.get("partition")
    if lists is None:
        return None
    if not isinstance(lists, dict) or not {"train", "test"} <= set(lists) <= set(Partition._fields):
        raise ValueError("its partition is none")
    if not all(map(_is_texts, lists.values())):
        raise ValueError("its partition is none")
    return Partition(**{key: tuple(texts) for key, texts in lists.items()})


def left_out_from(values: Any) -> tuple[LeftOut, ...]:
    """Read what was left out from JSON.

    Args:
        values: A list of lists of three texts.

    Returns:
        What was left out.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(values, list) or not all(_is_texts(each) and len(each) == 3 for each in values):
        raise ValueError("its list of what was left out is none")
    return tuple(LeftOut(*each) for each in values)


def left_out_text(left_out: Iterable[LeftOut]) -> str:
    """Write what was left out of a sequence as JSON.

    Args:
        left_out: What was left out.

    Returns:
        JSON, or an empty text for nothing.
    """
    values = [list(each) for each in left_out]
    return json.dumps(values) if values else ""


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(text, str) for text in values)
