"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as workshop:
        draft = Path(workshop) / path.name
        yield draft
        draft.replace(path)


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
