"""Texts for results, which name no folder of the machine that they were measured on."""

import re

# The folders of a path in the manner of Unix or Windows; a folder's name may contain one space. A URL is kept.
_FOLDER = r"[\w.+-]+(?: [\w.+-]+)?"
_FOLDERS = re.compile(rf"(\w+://\S*)|(?:/{_FOLDER})+/|(?<!\w)[A-Za-z]:[\\/]+(?:{_FOLDER}[\\/]+)*")
# Characters of an exception's message that are kept.
_LONGEST_MESSAGE = 300


def anonymous(text: str) -> str:
    """The text in one line, without the folders of this machine."""
    return _FOLDERS.sub(lambda found: found[1] or "", " ".join(text.split()))


def in_one_line(error: BaseException) -> str:
    """An exception's type and the beginning of its message, without the folders of this machine."""
    return anonymous(f"{type(error).__name__}: {str(error)[:_LONGEST_MESSAGE]}")
