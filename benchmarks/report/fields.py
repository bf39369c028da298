"""The fields of `results.json` and what each has to be; a damaged file gives a message, not a picture."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

# Any seconds, rate or count lies between them, so that quotients of two are floats as well.
LEAST, MOST = 1e-12, 1e18
# Characters of a wrong value that a message shows.
SHOWN = 60


class Kind(NamedTuple):
    """The values that a field may have, in words and as a check."""

    words: str
    holds: Callable[[Any], bool]


class Fields:
    """One object of the file, which messages call `where`; its methods raise ValueError for a wrong value."""

    def __init__(self, where: str, content: object) -> None:
        if not isinstance(content, dict):
            raise ValueError(f"{where}: expected an object, got {_shown(content)}")
        self.where = where
        self.content: dict[str, Any] = content

    def get(self, name: str, kind: Kind) -> Any:
        """The value of a field that has to be there."""
        if name not in self.content:
            raise ValueError(f"{self.where}: expected a field {name!r}, got none")
        value = self.content[name]
        if not kind.holds(value):
            raise ValueError(f"{self.where}: {name} must be {kind.words}, got {_shown(value)}")
        return value

    def maybe(self, name: str, kind: Kind) -> Any:
        """The value of a field that may be null or missing, then None."""
        if self.content.get(name) is None:
            return None
        return self.get(name, Kind(f"{kind.words} or null", kind.holds))

    def inner(self, name: str) -> "Fields":
        """A field that is an object itself."""
        return Fields(f"{self.where}: {name}", self.get(name, ANY))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


ANY = Kind("anything", lambda value: True)
TEXT = Kind("text", lambda value: isinstance(value, str))
NAME = Kind("printable text", lambda value: isinstance(value, str) and value != "" and value.isprintable())
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
LIST = Kind("a list", lambda value: isinstance(value, list))
POSITIVE = Kind(f"a number from {LEAST:g} to {MOST:g}", lambda value: _number(value) and LEAST <= value <= MOST)
ERROR = Kind("a number, 0 or more", lambda value: _number(value) and 0 <= value <= MOST and math.isfinite(value))
ANY_ERROR = Kind("a number", _number)
COUNT = Kind("a positive integer", lambda value: _integer(value) and 1 <= value <= MOST)
COUNT_OR_ZERO = Kind("an integer, 0 or more", lambda value: _integer(value) and 0 <= value <= MOST)
