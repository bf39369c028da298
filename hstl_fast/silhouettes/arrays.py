"""Arrays in `.npy`, `.npz` and `.pkl` files: read whole if they are small, else block by block."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.contents import describe
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.pickles import load_array

KEY = "silhouettes"
# Arrays of at most so many bytes are read whole, larger ones in blocks of at most so many bytes, or of one frame.
WHOLE, BLOCK = 32 * 2**20, 8 * 2**20


class Stored(NamedTuple):
    """Frames of a file.

    Attributes:
        length: The number of frames.
        blocks: Arrays `[t, H, W]`, or single frames `[H, W]` of different sizes, in order.
        whole: The array, if it was read whole.
    """

    length: int
    blocks: Iterator[NDArray[np.generic]]
    whole: NDArray[np.generic] | None = None


@contextmanager
def open_array(source: Path) -> Iterator[Stored]:
    """Open the frames in an array file; the block may read them.

    Args:
        source: A `.npy`, `.npz` or `.pkl` file.

    Yields:
        The frames.

    Raises:
        SilhouetteError: The file cannot be read, also later, as blocks are read.
    """
    if source.suffix.lower() == ".pkl":
        yield _in_memory(load_array(source), source)
        return
    with ExitStack() as files:
        with _damage_named(source):
            stored = _stored(_opened(source, files), source)
        yield stored


@contextmanager
def _damage_named(source: Path) -> Iterator[None]:
    try:
        yield
    except (SilhouetteError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail in any way
        kind = describe(source)
        got = f"{kind}, which cannot be read as one" if kind else "one that cannot be read"
        raise SilhouetteError(
            f"{source}: expected a {source.suffix} file with an array, got {got} ({reason_of(error)})"
        ) from error


def _opened(source: Path, files: ExitStack) -> IO[bytes]:
    file = files.enter_context(source.open("rb"))
    is_archive = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    file.seek(0)
    if not is_archive:
        return file
    archive = files.enter_context(zipfile.ZipFile(file))
    return files.enter_context(archive.open(_member(archive, source)))


def _member(archive: zipfile.ZipFile, source: Path) -> str:
    arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    if f"{KEY}.npy" in arrays:
        return f"{KEY}.npy"
    if len(arrays) != 1:
        held = ", ".join(name.removesuffix(".npy") for name in arrays[:8]) if arrays else "none"
        raise SilhouetteError(f"{source}: expected one array or one called {KEY}, got {len(arrays)} ({held})")
    return arrays[0]


def _stored(file: IO[bytes], source: Path) -> Stored:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("its elements are Python objects")
    _check_shape(shape, source)
    size = math.prod(shape) * dtype.itemsize
    if size <= WHOLE or fortran:
        values = np.frombuffer(_exactly(file, size), dtype)
        _to_the_end(file)
        return _in_memory(values.reshape(shape, order="F" if fortran else "C"), source)
    return Stored(shape[0], _blocks(file, source, shape, dtype))


def _blocks(
    file: IO[bytes], source: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> Iterator[NDArray[np.generic]]:
    frame = math.prod(shape[1:]) * dtype.itemsize
    step = max(1, BLOCK // frame)
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        with _damage_named(source):
            raw = _exactly(file, count * frame)
            if start + count == shape[0]:
                _to_the_end(file)
        yield np.frombuffer(raw, dtype).reshape(count, *shape[1:])


def _exactly(file: IO[bytes], size: int) -> bytes:
    # A damaged header may promise more than there is memory.
    if size <= BLOCK:
        raw = file.read(size)
    else:
        raw = b"".join(file.read(min(BLOCK, size - start)) for start in range(0, size, BLOCK))
    if len(raw) != size:
        raise ValueError(f"it ends {size - len(raw)} bytes early")
    return raw


def _to_the_end(file: IO[bytes]) -> None:
    """Read past the array: the checksum of a zip archive is compared at its end."""
    file.read(1)


def _in_memory(content: NDArray[np.generic] | list[NDArray[np.generic]], source: Path) -> Stored:
    if isinstance(content, list):
        return Stored(len(content), iter(content))
    _check_shape(content.shape, source)
    return Stored(len(content), iter((content,)), content)


def _check_shape(shape: tuple[int, ...], source: Path) -> None:
    if len(shape) == 3 and 0 not in shape and shape[2] > 4:
        return
    wanted = "expected an array [T, H, W]"
    if 0 in shape:
        got = "expected at least one frame of at least one pixel"
        raise SilhouetteError(f"{source}: {got}, got shape {list(shape)}")
    channels = len(shape) == 4 and (shape[1] in (1, 3, 4) or shape[3] in (1, 3, 4))
    other = ""
    if channels:
        other = ": pictures with channels, another modality?"
    elif len(shape) > 1 and shape[-1] <= 4:
        other = ": points or key points, another modality?"
    raise SilhouetteError(f"{source}: {wanted}, got shape {list(shape)}{other}")
