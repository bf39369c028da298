"""The meaning of a database's errors: busy, away, or what only a person can mend; each becomes a sentence."""

from __future__ import annotations

import re
from enum import Enum

from sqlalchemy.exc import DBAPIError

from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.storage.addresses import Address
from hstl_fast.silhouettes.errors import short


class Trouble(Enum):
    """The kinds of errors that pass with time, and all others."""

    BUSY = "another process writes"
    AWAY = "the database cannot be reached"
    LASTING = "nothing that passes"


# States of SQL: serialisation failure, deadlock, lock not available.
_BUSY_STATES = ("40001", "40P01", "55P03")
# Shut down by an administrator or a crash, starting up, too many connections; and the class of lost connections.
_AWAY_STATES = ("57P01", "57P02", "57P03", "53300")
_CONNECTION_CLASS = "08"
# libpq says only in words why it has no connection; these reasons do not pass.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|permission denied|"
    r"invalid (?:port|connection option|integer)|unsupported frontend",
    re.IGNORECASE,
)
_OF_SQLITE = (
    (re.compile(r"not a database|malformed|file is encrypted", re.IGNORECASE), "is damaged or no gallery"),
    (re.compile(r"unable to open database file", re.IGNORECASE), "cannot be opened"),
    (re.compile(r"readonly database", re.IGNORECASE), "cannot be written"),
    (re.compile(r"disk is full", re.IGNORECASE), "has no room: the disk is full"),
    (re.compile(r"disk I/O error", re.IGNORECASE), "cannot be read or written by the disk"),
)


def trouble_of(error: DBAPIError) -> Trouble:
    """Tell whether an error passes.

    Args:
        error: The error of a statement, a transaction or a connection.

    Returns:
        Its kind.
    """
    state, text = getattr(error.orig, "sqlstate", None), str(error.orig)
    if state in _BUSY_STATES or (state is None and re.search(r"database( table)? is locked", text)):
        return Trouble.BUSY
    if type(error.orig).__module__.startswith("sqlite3"):
        return Trouble.LASTING
    if state is not None and (state in _AWAY_STATES or state.startswith(_CONNECTION_CLASS)):
        return Trouble.AWAY
    is_of_connection = error.connection_invalidated or (state is None and type(error.orig).__name__ in _OPERATIONAL)
    return Trouble.AWAY if is_of_connection and not _REFUSED.search(text) else Trouble.LASTING


_OPERATIONAL = ("OperationalError", "ConnectionTimeout", "InterfaceError")


def sentence(address: Address, error: DBAPIError, waited: float) -> GalleryError:
    """Write the error for a person.

    Args:
        address: The gallery.
        error: The error of the database.
        waited: Seconds for which it was tried again.

    Returns:
        The error to raise, without the password.
    """
    text, kind = _reason(address, error), trouble_of(error)
    if kind is Trouble.BUSY:
        return GalleryError(f"{address.name}: the gallery is locked by others; tried for {waited:.0f} s ({text})")
    if kind is Trouble.AWAY:
        return GalleryError(f"{address.name}: the database cannot be reached; tried for {waited:.0f} s ({text})")
    for pattern, meaning in _OF_SQLITE if address.file is not None else ():
        if pattern.search(text):
            return GalleryError(f"{address.name} {meaning} ({text}); nothing was changed")
    return GalleryError(f"{address.name}: the database refuses ({text}); nothing was changed")


def _reason(address: Address, error: DBAPIError) -> str:
    text = short(str(error.orig).strip().replace("\n\t", ", "))
    password = address.server.password if address.server is not None else None
    return text.replace(str(password), "***") if password else text
