"""Names of people and of sources, as a gallery keeps them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from hstl_fast.recognition.errors import GalleryError

# Letters of a name and of a source at most.
LONGEST_NAME, LONGEST_SOURCE = 200, 500
# Categories of characters that no name has: control characters, lone surrogates, and ends of lines.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# They turn the direction of the text around them, so that a name looks like another one.
_DIRECTIONS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Letters and marks that show nothing, besides the category of format characters.
_UNSEEN = set("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2800\u3164\uffa0")
_UNSEEN |= {chr(code) for first, last in ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF)) for code in range(first, last + 1)}
# Joiners change how Persian and the scripts of India are written.
_JOINER, _NON_JOINER = "\u200d", "\u200c"
# The combining class of the mark beside which scripts of India have joiners.
_VIRAMA = 9


def check_name(name: str) -> str:
    """Check the name of a person.

    Args:
        name: The name, with any letters of Unicode.

    Returns:
        The name without spaces at its ends, its letters composed (NFC), so that equal names are equal texts.

    Raises:
        GalleryError: The name is empty, has more than 200 letters, a control character, or a slash, which ends the
            person in the names of embedding files.
    """
    if not isinstance(name, str):
        raise GalleryError(f"name must be a text; got {type(name).__name__}")
    composed = unicodedata.normalize("NFC", name).strip()
    if not composed:
        raise GalleryError(f"name must have at least one letter; got {name!r}")
    if len(composed) > LONGEST_NAME:
        raise GalleryError(f"name must have at most {LONGEST_NAME} letters; got {len(composed)}")
    if bad := [c for c in composed if unicodedata.category(c) in _UNPRINTABLE or c in _DIRECTIONS]:
        raise GalleryError(f"name must have no control characters; got {composed!a} with {bad[0]!a}")
    if "/" in composed:
        raise GalleryError(f"name must have no slash, which ends a person in the names of files; got {composed!r}")
    return composed


def check_new_name(name: str) -> str:
    """Check the name that a person is about to get.

    Args:
        name: The name.

    Returns:
        The name as `check_name` returns it.

    Raises:
        GalleryError: It is no name, or has characters that nobody sees, so that it would look like another one.
    """
    checked = check_name(name)
    for place, character in enumerate(checked):
        unseen = character in _UNSEEN or unicodedata.category(character) == "Cf"
        if unseen and not _joins(checked, place):
            called = unicodedata.name(character, "without a name")
            raise GalleryError(
                f"name must have no characters that cannot be seen; got {checked!a} with {character!a} ({called})"
            )
    return checked


def _joins(name: str, place: int) -> bool:
    """Whether a character is a joiner that shows, since letters around it look otherwise without it."""
    before, after = name[place - 1 : place], name[place + 1 : place + 2]
    if not before or name[place] not in (_JOINER, _NON_JOINER):
        return False
    virama = _VIRAMA in (unicodedata.combining(before), *map(unicodedata.combining, after))
    between_arabic = bool(after) and unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"
    return virama or (name[place] == _NON_JOINER and between_arabic)


def refuse_twins(names: Iterable[str], others: Iterable[str]) -> None:
    """Refuse names that others are hardly told from, such as one with a letter of double width.

    Args:
        names: New names that were checked; they may not be twins of each other, either.
        others: The names that are there.

    Raises:
        GalleryError: A name differs from another one by compatible forms of letters or spaces alone.
    """
    known: dict[str, str] = {}
    for other in others:
        known.setdefault(_plain(other), other)
    for name in names:
        twin = known.setdefault(_plain(name), name)
        if twin != name:
            raise GalleryError(
                f"the name {name!r} ({name!a}) is written almost like {twin!r} ({twin!a}), who is in the gallery; take "
                "that name, or one that looks different"
            )


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split())


def clean_source(source: str) -> str:
    """Make the text that says where a clip comes from one that every database and terminal takes.

    Args:
        source: The text, such as a path.

    Returns:
        The text with `?` for unprintable characters, of 500 characters at most: of a longer one, the end.
    """
    text = unicodedata.normalize("NFC", str(source))
    return "".join(c if c.isprintable() else "?" for c in text)[-LONGEST_SOURCE:]
