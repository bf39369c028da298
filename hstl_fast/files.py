"""Atomic writes: a file or folder appears complete or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# Errors that say that the disk, the quota or the largest size of a file is exhausted.
FULL = (errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else []))

# The file in a temporary folder that its owner keeps locked.
_LOCK = ".hstl-fast-lock"
# The lock of another machine may not be seen from here: its drafts count as abandoned after so many seconds.
_ABANDONED = 24 * 60 * 60


@contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """Replace a file atomically: the block writes a temporary file, which is renamed when the block ends without error.

    After an error the temporary file is removed and an earlier file at `path` stays. A symbolic link stays, and what
    it points to is replaced. The permissions of an earlier file stay.

    Args:
        path: The file to write; its folder has to exist.
        durable: Whether the file is on the disk, not only in the memory of the system, before it replaces the earlier
            one. Then a loss of power leaves one of the two, too.

    Yields:
        The path of the temporary file, beside `path`; the block has to create it.

    Raises:
        OSError: Something other than a file stands at `path`, or its folder cannot be written; the error names `path`.
    """
    target = _target_of(path)
    with _temporary_folder(path, target) as folder:
        draft = folder / path.name
        yield draft
        if durable:
            _synchronise(draft)
        _replace(target, draft)
        if durable:
            with suppress(OSError):  # some file systems cannot do so for folders
                _synchronise(target.parent)


def remove_abandoned(path: Path) -> None:
    """Remove the temporary files for `path` that processes have left behind which were killed while they wrote it.

    Those of processes that still write stay: each keeps a lock as long as it lives. A temporary file of another machine
    must also have been left alone for a day, since the locks of some network file systems end at the machine. Where the
    file system has no locks, all stay.

    Args:
        path: The file as `atomic_file` takes it.
    """
    target = Path(os.path.realpath(path))
    ours = _prefix(target)
    for folder in target.parent.glob(glob.escape(_prefix(target, machine="")) + "*"):
        with suppress(OSError):  # it is locked, just about to be, or just gone
            lock = _locked(folder / _LOCK, "r+")
            if lock is None:
                continue
            with lock:
                if folder.name.startswith(ours) or time.time() - _last_change(folder) > _ABANDONED:
                    shutil.rmtree(folder, ignore_errors=True)


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


def _synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def _prefix(target: Path, machine: str | None = None) -> str:
    """The beginning of the names of temporary folders for `target` that this machine makes, or all (`machine=""`)."""
    if machine is None:
        machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8] + "."
    return f".{target.name[:40]}.draft-{machine}"


@contextmanager
def _temporary_folder(path: Path, target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; an OSError that names it, or what is in it, names `path` instead."""
    prefix = _prefix(target)
    try:
        folder, lock = _locked_folder(prefix, target.parent)
        try:
            yield folder
        finally:
            if lock is not None:
                lock.close()
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        # The error of a full disk names no file at all.
        is_unnamed = error.filename is None and error.errno in FULL
        if not is_unnamed and not str(error.filename).startswith(str(target.parent / prefix)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _locked_folder(prefix: str, parent: Path) -> tuple[Path, IO[str] | None]:
    """Make a temporary folder whose lock this process holds; no lock where the system has none."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Until it is locked, another process may take it for an abandoned one and remove it.
        with suppress(FileNotFoundError, BlockingIOError):
            lock = _locked(folder / _LOCK, "w")
            if lock is None or (folder / _LOCK).exists():
                return folder, lock
            lock.close()


def _locked(path: Path, mode: str) -> IO[str] | None:
    """Open a file and lock it; the system gives the lock back when the process ends, however it ends.

    Returns:
        The file, or None where there are no locks.

    Raises:
        FileNotFoundError: There is no such file.
        BlockingIOError: Another has locked it.
    """
    file = path.open(mode)
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except (ImportError, OSError):
        file.close()
        return None
    return file


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


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
