"""Atomic writes: a file or folder appears complete or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Replace a file atomically: the block writes a temporary file, which is renamed when the block ends without error.

    After an error the temporary file is removed and an earlier file at `path` stays. A symbolic link stays, and what
    it points to is replaced. The permissions of an earlier file stay.

    Args:
        path: The file to write; its folder has to exist.

    Yields:
        The path of the temporary file, beside `path`; the block has to create it.

    Raises:
        OSError: Something other than a file stands at `path`, or its folder cannot be written; the error names `path`.
    """
    target = _target_of(path)
    with _temporary_folder(path, target) as folder:
        draft = folder / path.name
        yield draft
        _replace(target, draft)


def replace_file(path: Path, draft: Path) -> None:
    """Replace a file by a finished one atomically, as `atomic_file` does at its end.

    Args:
        path: The file to replace.
        draft: The finished file, on the same file system; it is renamed.

    Raises:
        OSError: Something other than a file stands at `path`, or it cannot be replaced.
    """
    _replace(_target_of(path), draft)


def _target_of(path: Path) -> Path:
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, got a folder")
    if os.path.lexists(target) and not target.is_file():
        raise OSError(f"{path}: expected a file to write, got something else of that name")
    return target


def _replace(target: Path, draft: Path) -> None:
    if target.exists():
        draft.chmod(stat.S_IMODE(target.stat().st_mode))
    draft.replace(target)


@contextmanager
def _temporary_folder(path: Path, target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; an OSError that names it, or what is in it, names `path` instead."""
    prefix = f".{target.name[:40]}."
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        if not str(error.filename).startswith(str(target.parent / prefix)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def refuse_if_fixed(path: Path) -> None:
    """Check that a folder can be replaced by another one.

    Args:
        path: The folder, which need not exist.

    Raises:
        FileExistsError: `path` is the working directory or a mount point.
    """
    if path.resolve() == Path.cwd():
        raise FileExistsError(f"{path}: expected a folder that can be replaced, got the one we are in")
    if path.is_mount():
        raise FileExistsError(f"{path}: expected a folder that can be replaced, got a mount point")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Replace a folder atomically: the block fills a temporary one, which is renamed when the block ends without error.

    After an error the temporary folder is removed and an earlier folder at `path` stays.

    Args:
        path: The folder to write; missing folders above it are made.

    Yields:
        The path of an empty temporary folder beside `path`.

    Raises:
        FileExistsError: `path` is the working directory or a mount point.
        OSError: The folder of `path` cannot be written; the error names `path`.
    """
    refuse_if_fixed(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(path, path) as folder:
        draft, previous = folder / "new", folder / "previous"
        draft.mkdir()
        yield draft
        if path.exists():
            path.rename(previous)
        try:
            draft.rename(path)
        except BaseException:
            if previous.exists():
                previous.rename(path)
            raise
