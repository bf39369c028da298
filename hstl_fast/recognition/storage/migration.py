"""Galleries of an older format: one step from each format to the next, all in one transaction, a backup first."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, select, update

from hstl_fast.files import atomic_file
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.storage import tables
from hstl_fast.recognition.storage.database import Database, open_file

# The step from a format to the next, by the older one. Format 1 is the first, so that there is none yet.
STEPS: dict[int, Callable[[Connection], None]] = {}


def migrate(database: Database) -> Path | None:
    """Bring a gallery to the format of this version, if it is older.

    An SQLite gallery is copied first, to `NAME.format-N.db` beside it. On PostgreSQL all steps are one transaction, and
    a backup is up to those who run the server: `pg_dump --table 'hstl_*' URL > gallery.sql`.

    Args:
        database: The gallery.

    Returns:
        The backup, or None where nothing was migrated or the gallery is on a server.

    Raises:
        GalleryError: The gallery is of a newer format, or the step from its format is not known; nothing was changed.
    """
    found = database.read(_format)
    _check(database, found)
    if found == tables.FORMAT:
        return None
    backup = _back_up(database.address.file, found) if database.address.file is not None else None
    database.define(lambda connection: _step_by_step(database, connection))
    return backup


def _format(connection: Connection) -> int:
    return int(connection.execute(select(tables.meta.c.format)).scalar_one())


def _check(database: Database, found: int) -> None:
    if found > tables.FORMAT:
        raise GalleryError(
            f"{database.address.name}: expected a gallery of format {tables.FORMAT} or older; got {found}, which "
            "a newer hstl_fast wrote: update this one; nothing was changed"
        )
    if missing := [number for number in range(found, tables.FORMAT) if number not in STEPS]:
        raise GalleryError(
            f"{database.address.name}: expected a gallery of format {tables.FORMAT}; got {found}, and how to migrate "
            f"one of format {missing[0]} is not known; nothing was changed"
        )


def _step_by_step(database: Database, connection: Connection) -> None:
    """Migrate; another process may have done so since the format was read, so it is read again under the lock."""
    connection.execute(update(tables.meta).values(revision=tables.meta.c.revision + 1))
    found = _format(connection)
    _check(database, found)
    for number in range(found, tables.FORMAT):
        STEPS[number](connection)
    connection.execute(update(tables.meta).values(format=tables.FORMAT))


def _back_up(path: Path, found: int) -> Path:
    names = [f"{path.stem}.format-{found}{more}{path.suffix}" for more in ("", *(f"-{i}" for i in range(2, 1000)))]
    backup = next(place for name in names if not (place := path.with_name(name)).exists())
    with closing(open_file(path)) as source, atomic_file(backup, durable=True) as draft:
        draft.touch(mode=0o600)  # as a new gallery
        copy = sqlite3.connect(draft)
        with closing(copy):
            source.backup(copy)
    return backup
