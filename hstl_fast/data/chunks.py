"""Frames in compressed chunks, each with a checksum, and the import of the library that packed files need."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 16
CODEC = "lz4"
LEVEL = 3
SIZE = 64
FRAME_BYTES = SIZE * SIZE


def arrow() -> Any:
    """Import `pyarrow`.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed.
    """
    try:
        module = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.ipc")
    except ImportError as error:
        raise ImportError(
            f"packed files need pyarrow, which could not be imported ({error}); "
            "install it with: pip install 'hstl_fast[data]'"
        ) from error
    return module


def codec(name: str = CODEC) -> Any:
    """Make a compressor.

    Args:
        name: Name of the codec.

    Returns:
        An object with `compress` and `decompress`.
    """
    return arrow().Codec(name, compression_level=LEVEL)


def compress(frames: NDArray[np.uint8]) -> Iterator[bytes]:
    """Compress frames chunk by chunk.

    Args:
        frames: `[T, 64, 64]` uint8.

    Yields:
        The chunks of `CHUNK` frames, the last one of as many as are left.
    """
    squeeze = codec().compress
    for start in range(0, len(frames), CHUNK):
        yield squeeze(np.ascontiguousarray(frames[start : start + CHUNK]).reshape(-1), asbytes=True)


def checksum(chunk: Any) -> int:
    """Compute the checksum of a compressed chunk.

    Args:
        chunk: Bytes, or another buffer.

    Returns:
        Its CRC-32.
    """
    return zlib.crc32(chunk)


def chunks_of(num_frames: NDArray[np.int64] | int) -> Any:
    """Count the chunks of sequences.

    Args:
        num_frames: Numbers of frames.

    Returns:
        As many numbers of chunks.
    """
    return -(-num_frames // CHUNK)
