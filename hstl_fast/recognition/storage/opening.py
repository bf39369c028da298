"""Opening a gallery: it is made where there is none, checked, and migrated where it is older."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, text

from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.storage import tables
from hstl_fast.recognition.storage.addresses import Address
from hstl_fast.recognition.storage.database import Database
from hstl_fast.recognition.storage.migration import migrate

# SQLite checks itself at opening up to this size, in a fraction of a second; `check` checks galleries of any size.
CHECKED_SIZE = 64 << 20
_MAGIC = b"SQLite format 3\0"
# Any number: two processes that open an empty database of a server make its tables one after the other.
_LOCK = 0x4853544C


def open_database(address: Address, create: bool) -> Database:
    """Open the database of a gallery.

    Args:
        address: Its place.
        create: Whether to make a gallery where there is none.

    Returns:
        The database, of the format of this version.

    Raises:
        GalleryError: There is no gallery and none may be made, or what is there is no gallery, damaged or of a newer
            format; nothing was changed.
    """
    if address.file is not None:
        _check_file(address.file, create)
    database = Database(address)
    try:
        names = database.read(lambda connection: set(inspect(connection).get_table_names()))
        if tables.meta.name not in names:
            _make(database, create, names)
        elif address.file is not None and address.file.stat().st_size <= CHECKED_SIZE:
            quick_check(database)
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def quick_check(database: Database) -> None:
    """Let SQLite check its file; a server checks its own.

    Args:
        database: The gallery.

    Raises:
        GalleryError: The file is damaged.
    """
    if not database.is_file:
        return

    found = database.read(lambda connection: str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()))
    if found != "ok":
        raise GalleryError(
            f"{database.address.name} is damaged ({' '.join(found.split())}); nothing was changed: take a copy or an "
            "export of it instead"
        )


def _check_file(path: Path, create: bool) -> None:
    if path.is_dir():
        raise GalleryError(f"{path}: expected a gallery, which is a file; got a folder")
    if not path.exists():
        if not create:
            raise GalleryError(f"{path}: there is no such gallery; `hstl-fast enroll` makes one")
        if not path.absolute().parent.is_dir():
            raise GalleryError(f"{path}: expected a folder that exists; there is none called {path.parent}")
    try:
        # How people walk is theirs: nobody else may read a new gallery.
        if not path.exists():
            path.touch(mode=0o600)
        with path.open("rb") as file:
            first = file.read(len(_MAGIC))
    except OSError as error:
        raise GalleryError(f"{path}: the gallery cannot be opened: {error.strerror}") from error
    if first and first != _MAGIC:
        raise GalleryError(f"{path}: expected a gallery, which is an SQLite database; got a file of another kind")


def _make(database: Database, create: bool, found: set[str]) -> None:
    name = database.address.name
    if not create:
        raise GalleryError(f"{name}: there is no gallery in this database; `hstl-fast enroll` makes one")
    if found and database.is_file:
        raise GalleryError(f"{name}: expected a gallery; got an SQLite database of something else")
    database.define(_make_tables)


def _make_tables(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if inspect(connection).has_table(tables.meta.name):
        return  # another process was first
    tables.metadata.create_all(connection)
    now = datetime.now(timezone.utc)
    connection.execute(
        insert(tables.meta).values(id=1, format=tables.FORMAT, gallery=uuid.uuid4().hex, revision=0, created=now)
    )
