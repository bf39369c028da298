"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as workshop:
        draft = Path(workshop) / path.name
        yield draft
        draft.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, renamed to it when the block ends well (in place of what stood there)
    and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as workshop:
        draft, previous = Path(workshop) / "new", Path(workshop) / "previous"
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


def refuse_if_taken(path: Path, marker: str, overwrite: bool) -> None:
    """Raises FileExistsError when `path` is a file, or a folder with something in it that may not be replaced:
    `overwrite` replaces only folders that hold `marker`, the sign of our own output."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path}: expected a folder or nothing there, got a file")
    if not any(path.iterdir()):
        return
    ours = (path / marker).is_file()
    if not ours:
        raise FileExistsError(
            f"{path}: expected an empty folder or an earlier output (with {marker}), got a folder with other files"
        )
    if not overwrite:
        raise FileExistsError(f"{path}: holds an earlier output; pass overwrite to replace it")
