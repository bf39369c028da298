"""The files of the page, read once: nothing else of the disk is ever served."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

_KINDS = {
    "index.html": "text/html; charset=utf-8",
    "token.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "people.js": "text/javascript; charset=utf-8",
    "elements.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file of the page.

    Attributes:
        kind: Its content type.
        content: What is in it.
    """

    kind: str
    content: bytes


INDEX, TOKEN_PAGE = "index.html", "token.html"
_FOLDER = files("hstl_fast.recognition.server") / "static"
ASSETS = {name: Asset(kind, (_FOLDER / name).read_bytes()) for name, kind in _KINDS.items()}
# The paths that the page which asks for the token needs, open to all.
PUBLIC = frozenset({"/static/page.css", "/static/icon.svg"})
