"""The protocol of a layout: how a folder is recognised by the names in it, and how its sequences are listed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hstl_fast.data.layouts.walk import Walk
from hstl_fast.silhouettes.folders import FILE_SUFFIXES, PICTURE_SUFFIXES


class Leaf(NamedTuple):
    """A folder with data in it, as recognition sees it.

    Attributes:
        folders: Names of the folders from the root to it.
        files: Names of some of the files in it.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]

    def under(self, pattern: str) -> bool:
        """Tell whether the folders, with `/` between, fit a regular expression."""
        return re.fullmatch(pattern, "/".join(self.folders)) is not None

    def has(self, suffixes: tuple[str, ...]) -> bool:
        """Tell whether a file has one of these suffixes."""
        return any(name.lower().endswith(suffixes) for name in self.files)

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures in it."""
        return self.has(PICTURE_SUFFIXES)

    @property
    def has_arrays(self) -> bool:
        """Whether there are files in it that hold a sequence each."""
        return self.has(FILE_SUFFIXES)


class Candidate(NamedTuple):
    """A sequence that a layout lists.

    Attributes:
        label: The person.
        type: The recording, or nothing.
        view: The camera, or nothing.
        path: Its file or folder below the root, with `/` between.
        more: What tells it from others of the same label, type and view, or nothing.
    """

    label: str
    type: str
    view: str
    path: str
    more: str = ""


class Layout(NamedTuple):
    """One way to lay out a data set.

    Attributes:
        name: Its name, as `--layout` takes it.
        example: The path of a sequence in it.
        fits: Tells whether a folder with data in it may stand in this layout.
        candidates: Lists the sequences; the pattern chooses files, or is None.
        takes_pattern: Whether several files of one recording stand in a folder, of which a pattern may choose.
        of_one_person: Whether a folder with data in it may stand in the folder of one person of this layout.
    """

    name: str
    example: str
    fits: Callable[[Leaf], bool]
    candidates: Callable[[Walk, str | None], Iterator[Candidate]]
    takes_pattern: bool = False
    of_one_person: Callable[[Leaf], bool] = lambda leaf: False
