"""Names of people and of sources, as a gallery keeps them."""

from __future__ import annotations

import unicodedata

from hstl_fast.recognition.errors import GalleryError

# Letters of a name and of a source at most.
LONGEST_NAME, LONGEST_SOURCE = 200, 500
# Categories of characters that no name has: control characters, lone surrogates, and ends of lines.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# They turn the direction of the text around them, so that a name looks like another one.
_DIRECTIONS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


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


def clean_source(source: str) -> str:
    """Make the text that says where a clip comes from one that every database and terminal takes.

    Args:
        source: The text, such as a path.

    Returns:
        The text with `?` for unprintable characters, of 500 characters at most: of a longer one, the end.
    """
    text = unicodedata.normalize("NFC", str(source))
    return "".join(c if c.isprintable() else "?" for c in text)[-LONGEST_SOURCE:]
