"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    A symbolic link stays and what it points to is replaced; the permissions of an earlier file stay. OSError, naming
    `path`, where something other than a file stands or its folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, got a folder")
    if os.path.lexists(target) and not target.is_file():
        raise OSError(f"{path}: expected a file to write, got something else of that name")
    with _workshop(path, target) as workshop:
        draft = workshop / path.name
        yield draft
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        draft.replace(target)


@contextmanager
def _workshop(path: Path, target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; an OSError that names it, or what is in it, names `path` instead."""
    prefix = f".{target.name[:40]}."
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as workshop:
            yield Path(workshop)
    except OSError as error:
        if not str(error.filename).startswith(str(target.parent / prefix)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def refuse_if_fixed(path: Path) -> None:
    """Raise FileExistsError for a folder that another one cannot take the place of."""
    if path.resolve() == Path.cwd():
        raise FileExistsError(f"{path}: expected a folder that can be replaced, got the one we are in")
    if path.is_mount():
        raise FileExistsError(f"{path}: expected a folder that can be replaced, got a mount point")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, renamed to it when the block ends well (in place of what stood there)
    and removed when it does not. FileExistsError for a folder that cannot be renamed."""
    refuse_if_fixed(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(path, path) as workshop:
        draft, previous = workshop / "new", workshop / "previous"
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
