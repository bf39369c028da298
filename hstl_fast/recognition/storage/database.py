"""The database of a gallery: connections, transactions that hold or leave no trace, and another try where it passes.

SQLite keeps its rollback journal (DELETE), not a write-ahead log: between two transactions a gallery is one file that
can be copied, it works on network drives, and deleted vectors do not stay in a log. A transaction takes milliseconds,
since embeddings are computed before it begins, so that readers hardly wait. `synchronous=EXTRA` is FULL, and waits for
the removal of the journal, too: what was acknowledged survives a loss of power.
"""

from __future__ import annotations

import random
import sqlite3
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, delete, event, insert, select, update
from sqlalchemy.exc import DBAPIError

from hstl_fast.recognition.storage import tables
from hstl_fast.recognition.storage.addresses import Address
from hstl_fast.recognition.storage.troubles import Trouble, sentence, trouble_of

T = TypeVar("T")

# Seconds until an error that may pass is reported, ...
PATIENCE = {Trouble.BUSY: 30.0, Trouble.AWAY: 10.0, Trouble.LASTING: 0.0}
# ... and the waits between, each twice as long as the one before.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0
# SQLite itself waits so many seconds for a lock, and psycopg for a connection.
_LOCK_SECONDS, _CONNECT_SECONDS = 5.0, 5
# A server that says nothing any more, since its network was cut, say, is noticed after about so many seconds.
_SILENCE_SECONDS = 30
# So many of the latest changes are remembered.
_CHANGES = 1000
_PAGE = 8192
# An option of connections: whether the transaction writes.
_WRITES = "hstl_fast_writes"


def _in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection, connection.begin():
        return work(connection)


class Database:
    """A database in which transactions run.

    Attributes:
        address: The place of the gallery.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._engine = _sqlite(address.file) if address.file is not None else _postgresql(address)
        writing: dict[str, Any] = {_WRITES: True}
        reading: dict[str, Any] = {} if self.is_file else {"isolation_level": "REPEATABLE READ"}
        self._writer = self._engine.execution_options(**writing)
        self._reader = self._engine.execution_options(**reading)

    @property
    def is_file(self) -> bool:
        """Whether it is an SQLite file."""
        return self.address.file is not None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in one transaction, which sees one state of the gallery.

        Args:
            work: Called with the connection; called again after an error that passes.

        Returns:
            What `work` returned.

        Raises:
            GalleryError: The database cannot be read.
        """
        return self._persistently(partial(_in_transaction, self._reader, work))

    def define(self, work: Callable[[Connection], T]) -> T:
        """Write in one transaction that does not count as a change, such as one that makes the tables.

        Args:
            work: Called with the connection; called again after an error that passes, and must then find what it did.

        Returns:
            What `work` returned.

        Raises:
            GalleryError: The database cannot be written.
        """
        return self._persistently(partial(_in_transaction, self._writer, work))

    def change(self, work: Callable[[Connection], T]) -> T:
        """Write in one transaction that also raises the revision: all of it is there afterwards, or nothing.

        Writers follow one another, since each begins by raising the revision. After a connection that was lost during
        the commit it is looked up whether the change was made, so that none is made twice.

        Args:
            work: Called with the connection; called again after an error that passes.

        Returns:
            What `work` returned in the transaction that was committed.

        Raises:
            GalleryError: The database cannot be written.
        """
        token = uuid.uuid4().hex
        done: list[T] = []

        def attempt() -> T:
            with self._writer.connect() as connection, connection.begin():
                revision = _raise_revision(connection)
                if done and _is_made(connection, token):
                    return done[0]
                done[:] = [work(connection)]
                connection.execute(insert(tables.changes).values(revision=revision, token=token))
                connection.execute(delete(tables.changes).where(tables.changes.c.revision <= revision - _CHANGES))
            return done[0]

        return self._persistently(attempt)

    def outside_transactions(self, *statements: str) -> None:
        """Run statements that no transaction may hold, such as VACUUM.

        Args:
            *statements: The statements.

        Raises:
            GalleryError: The database refuses one.
        """

        def attempt() -> None:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)

        self._persistently(attempt)

    def _persistently(self, attempt: Callable[[], T]) -> T:
        began, wait = time.monotonic(), _FIRST_WAIT
        while True:
            try:
                return attempt()
            except DBAPIError as error:
                waited = time.monotonic() - began
                if waited + wait > PATIENCE[trouble_of(error)]:
                    raise sentence(self.address, error, waited) from error
            # Two processes that met once do not meet again.
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, _LONGEST_WAIT)


def open_file(path: Path) -> sqlite3.Connection:
    """Open an SQLite file with the settings of a gallery.

    Args:
        path: The file, which has to exist.

    Returns:
        The connection, which begins no transaction by itself.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, check_same_thread=False, isolation_level=None)
    # The size of a page counts for a new file only: vectors are far larger than SQLite's own size.
    for setting in (
        f"page_size={_PAGE}",
        "foreign_keys=ON",
        "synchronous=EXTRA",
        "secure_delete=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {setting}")
    return connection


def _sqlite(path: Path) -> Engine:
    """An engine that opens the file for each transaction, so that one which was moved away is noticed."""
    engine = create_engine("sqlite://", creator=lambda: open_file(path), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES) else "BEGIN")

    return engine


def _postgresql(address: Address) -> Engine:
    assert address.server is not None
    settings = {
        "connect_timeout": _CONNECT_SECONDS,
        "application_name": "hstl_fast",
        "keepalives_idle": _SILENCE_SECONDS // 2,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * _SILENCE_SECONDS,
    }
    given = {name: value for name, value in settings.items() if name not in address.server.query}
    engine = create_engine(address.server, connect_args=given, pool_pre_ping=True, pool_size=2)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # As SQLite does: whoever holds a lock for longer is said to, and tried again for a while. Until the end of the
        # transaction, since a pooler may give the session to others; and not where somebody has set another limit.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            limit = f"set_config('lock_timeout', '{1000 * _LOCK_SECONDS:.0f}ms', true)"
            connection.exec_driver_sql(f"SELECT {limit} WHERE current_setting('lock_timeout') = '0'")

    return engine


def _raise_revision(connection: Connection) -> int:
    meta = tables.meta
    connection.execute(update(meta).values(revision=meta.c.revision + 1))
    return int(connection.execute(select(meta.c.revision)).scalar_one())


def _is_made(connection: Connection, token: str) -> bool:
    found = connection.execute(select(tables.changes.c.revision).where(tables.changes.c.token == token))
    return found.first() is not None
