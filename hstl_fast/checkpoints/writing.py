"""Writing of a checkpoint's file, whole and readable or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from hstl_fast.files import FULL, atomic_file, remove_abandoned


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain content by `torch.save`, so that an earlier file stays until the new one is complete and readable.

    What an earlier process left behind that was killed while it wrote the same file is removed first. The new file is
    on the disk and has been read back before it replaces the earlier one; its tensors are mapped for that, not read.

    Args:
        path: The file.
        content: Plain values, as `plain` makes them.

    Raises:
        OSError: The file cannot be written; where the disk is full, the message says how much space it takes.
        ValueError: What was written cannot be read back.
    """
    remove_abandoned(path)
    with _saying_the_size(path, content), atomic_file(path, durable=True) as draft:
        _save(content, draft)
        _check_readable(draft, path)


def _save(content: Mapping[str, Any], draft: Path) -> None:
    with draft.open("wb") as file:
        output = _Output(file)
        torch.save(dict(content), output)  # type: ignore[arg-type]
        file.flush()
        if output.error is not None:
            raise output.error


class _Output:
    """A file that keeps the first error for the caller: torch would hide it behind one of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write data; after an error nothing more is written."""
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing, since the file is flushed at the end."""


def _check_readable(draft: Path, path: Path) -> None:
    try:
        torch.load(draft, map_location="cpu", weights_only=True, mmap=True)
    except Exception as fault:
        raise ValueError(f"{path}: cannot be read back as it was written, so nothing is replaced: {fault}") from fault


@contextmanager
def _saying_the_size(path: Path, content: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        size = _size(_bytes_in(content))
        sentence = f"{os.strerror(error.errno)}; the checkpoint takes {size}, an earlier one stays as it is"
        raise OSError(error.errno, sentence, str(path)) from error


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _bytes_in(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes_in, value.values()))
    return sum(map(_bytes_in, value)) if isinstance(value, (list, tuple)) else 0
