"""Addresses of galleries: a file, or a database on a server."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from hstl_fast.recognition.errors import GalleryError

_EXPECTED = "expected a file such as people.db, sqlite:///people.db, or postgresql://user@host/database"
_DRIVER = "postgresql+psycopg"


@dataclass(frozen=True)
class Address:
    """The place of a gallery.

    Attributes:
        shown: The URL without its password.
        name: The gallery in a sentence: its file, or the URL without password.
        file: The file of an SQLite gallery, or None.
        server: The URL of a PostgreSQL gallery for SQLAlchemy, or None.
    """

    shown: str
    name: str
    file: Path | None
    server: URL | None

    @classmethod
    def parse(cls, url: str | os.PathLike[str]) -> Address:
        """Read the address of a gallery.

        Args:
            url: A path, `sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.

        Returns:
            The address.

        Raises:
            GalleryError: It is something else; the message has no password in it.
        """
        text = os.fspath(url)
        scheme = re.match(r"([A-Za-z][\w+.-]+):", text)
        if scheme is None or (os.name == "nt" and len(scheme[1]) == 1):
            return cls._of_file(text)
        kind = scheme[1].lower()
        if kind in ("sqlite", "sqlite+pysqlite"):
            if not text[scheme.end() :].startswith("///"):
                raise GalleryError(f"gallery {text!r}: {_EXPECTED}; a file has three slashes before its path")
            if "?" in text:
                raise GalleryError(f"gallery {text!r}: {_EXPECTED}; options after a question mark are not known")
            return cls._of_file(text[scheme.end() + 3 :])
        if kind in ("postgresql", "postgres", _DRIVER):
            return cls._of_server(text[scheme.end() :])
        raise GalleryError(f"gallery of the kind {kind!r}: {_EXPECTED}")

    @classmethod
    def _of_file(cls, text: str) -> Address:
        if not text or text == ":memory:" or "\0" in text:
            raise GalleryError(f"gallery {text!r}: {_EXPECTED}; a gallery in memory would be lost")
        path = Path(text).expanduser()
        return cls(f"sqlite:///{path.as_posix()}", str(path), path, None)

    @classmethod
    def _of_server(cls, rest: str) -> Address:
        try:
            url = make_url(_DRIVER + ":" + rest)
        except (ArgumentError, ValueError) as error:
            raise GalleryError(f"gallery on PostgreSQL: {_EXPECTED}; its URL cannot be read") from error
        if not url.database:
            raise GalleryError(f"gallery on PostgreSQL: {_EXPECTED}; its URL names no database")
        public = url.difference_update_query(["password", "sslpassword"])
        shown = public.set(drivername="postgresql").render_as_string(hide_password=True).replace(":***@", "@")
        return cls(shown, shown, None, url)
