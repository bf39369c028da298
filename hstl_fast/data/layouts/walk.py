"""Listing the folders of a data set: one folder at a time, with a record of everything that is not followed."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from hstl_fast.silhouettes.finding import BROKEN_LINK, EMPTY_FOLDER, LINK_ABOVE, LINK_TWICE, NO_SILHOUETTES
from hstl_fast.silhouettes.folders import hidden, is_picture
from hstl_fast.silhouettes.left_out import LeftOut

STRAY_FILE = "file beside the sequences"
ARCHIVE = "archive that is not unpacked"
OTHER_FOLDER = "folder of another name"
CLOSED = "folder that cannot be opened"
# A pattern that every name fits.
ANY = r"(?s:.+)"
OTHER_MODALITY = "other modality (kinds of files)"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
# More kinds of names than a data set has modalities are names of another kind, and are counted together.
_MOST_KINDS = 200


class Entry(NamedTuple):
    """A file or folder that stands in a folder.

    Attributes:
        name: Its name.
        path: Its path below the root, with `/` between.
        is_folder: Whether it is a folder, or a link to one that may be followed.
    """

    name: str
    path: str
    is_folder: bool


class Walk:
    """The folders below a root.

    Folders are listed with `os.scandir`, which tells folders from files without asking for each; only links are
    resolved. No folder below itself is entered, and no link into the data set itself or to a place met before.

    Attributes:
        root: The folder that is listed.
        left_out: What was met and not followed.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.left_out: list[LeftOut] = []
        self._real_root = os.path.realpath(root)
        self._targets: set[str] = set()
        self._modalities: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def leave_out(self, path: str, reason: str, detail: str = "") -> None:
        """Record something that is not followed.

        Args:
            path: Its path below the root.
            reason: Why.
            detail: A sentence, or nothing.
        """
        self.left_out.append(LeftOut(self.whole(path), reason, detail))

    def whole(self, path: str) -> str:
        """Join a path below the root to the root.

        Args:
            path: The path, or nothing for the root.

        Returns:
            The whole path.
        """
        return os.path.join(self.root, path) if path else self.root  # noqa: PTH118

    def entries(self, folder: str) -> list[Entry]:
        """List a folder; hidden entries are skipped, links that cannot be followed are recorded.

        Args:
            folder: Its path below the root; empty for the root.

        Returns:
            What stands in it, in the order of the names.
        """
        found, anything = [], False
        try:
            with os.scandir(self.whole(folder)) as listing:
                for entry in listing:
                    if hidden(entry.name):
                        continue
                    anything = True
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    is_folder = entry.is_dir() if not entry.is_symlink() else self._follows(entry, folder, path)
                    if is_folder is False and not entry.is_file():
                        self.leave_out(path, STRAY_FILE, "a pipe, a socket or a device")
                    elif is_folder is not None:
                        found.append(Entry(entry.name, path, is_folder))
        except OSError as error:
            self.leave_out(folder, CLOSED, error.strerror or str(error))
            return []
        if not anything:
            self.leave_out(folder, EMPTY_FOLDER)
        return sorted(found)

    def views(self, person: str = ANY, kind: str = ANY, view: str = ANY) -> Iterator[tuple[str, str, str, str]]:
        """List the folders three levels below the root, of a person, a recording and a view, by their names.

        Args:
            person: What the names of the first level have to fit, a regular expression.
            kind: What those of the second level have to fit.
            view: What those of the third level have to fit.

        Yields:
            The three names, and the folder's path.
        """
        for label, of_person in self.folders("", person):
            for recording, of_recording in self.folders(of_person, kind):
                for camera, folder in self.folders(of_recording, view):
                    yield label, recording, camera, folder

    def folders(self, folder: str, pattern: str = ANY) -> Iterator[tuple[str, str]]:
        """List the folders in a folder whose names fit; everything else in it is recorded.

        Args:
            folder: Its path below the root; empty for the root.
            pattern: A regular expression of the whole name.

        Yields:
            Names, and paths below the root.
        """
        for entry in self.entries(folder):
            if not entry.is_folder:
                self.leave_out_file(entry)
            elif re.fullmatch(pattern, entry.name):
                yield entry.name, entry.path
            else:
                self.leave_out(entry.path, OTHER_FOLDER)

    def leave_out_file(self, entry: Entry) -> None:
        """Record a file that is not part of a sequence.

        Args:
            entry: The file.
        """
        is_archive = entry.name.lower().endswith(ARCHIVE_SUFFIXES)
        self.leave_out(entry.path, ARCHIVE if is_archive else STRAY_FILE)

    def has_frames(self, folder: str) -> bool:
        """Tell whether a folder has frames in it; the listing ends at the first one.

        Args:
            folder: Its path below the root.

        Returns:
            False, and a record of the reason, for a folder without frames.
        """
        others: list[str] = []
        try:
            with os.scandir(self.whole(folder)) as listing:
                for entry in listing:
                    if is_picture(entry.name):
                        return True
                    if len(others) < 3 and not hidden(entry.name):
                        others.append(entry.name)
        except OSError as error:
            self.leave_out(folder, CLOSED, error.strerror or str(error))
            return False
        if others:
            self.leave_out(folder, NO_SILHOUETTES, f"it has {', '.join(sorted(others))}")
        else:
            self.leave_out(folder, EMPTY_FOLDER)
        return False

    def leave_out_modality(self, name: str, view: str, path: str) -> None:
        """Record a file of another modality; files that are called alike are counted together.

        Args:
            name: Name of the file.
            view: Name of its view, which does not count.
            path: Its path below the root.
        """
        kind = re.sub(r"\d+", "*", name.replace(view, "*") if view else name)
        kind = re.sub(r"\*(?:[-_]?\*)+", "*", kind)
        if kind not in self._modalities and len(self._modalities) >= _MOST_KINDS:
            kind = "*"
        self._modalities[kind] += 1
        self._examples.setdefault(kind, path)

    def end(self) -> list[LeftOut]:
        """End the listing.

        Returns:
            Everything that was recorded.
        """
        for kind, count in self._modalities.most_common():
            files = "1 file" if count == 1 else f"{count} files"
            place = self.whole(f"**/{kind}")
            self.left_out.append(LeftOut(place, OTHER_MODALITY, f"{files} such as {self._examples[kind]}"))
        self._modalities.clear()
        return self.left_out

    def _follows(self, entry: os.DirEntry[str], folder: str, path: str) -> bool | None:
        """Whether a link leads to a folder; None, and a record, where it is not followed."""
        try:
            is_folder = entry.is_dir()
            if not is_folder and entry.is_file():
                return False
        except OSError as error:
            is_folder = error.errno != errno.ELOOP
        if not is_folder:
            self.leave_out(path, BROKEN_LINK)
            return None
        target = os.path.realpath(entry.path)
        here = os.path.realpath(self.whole(folder))
        if inside(here, target):
            self.leave_out(path, LINK_ABOVE)
            return None
        if inside(target, self._real_root) or target in self._targets:
            self.leave_out(path, LINK_TWICE, f"it leads to {target}")
            return None
        self._targets.add(target)
        return True


def composed(name: str) -> str:
    """Write a name in Unicode's composed form (NFC), in which people are compared.

    Args:
        name: A name in any form.

    Returns:
        The same name in that form.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def inside(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or something in it.

    Args:
        path: The path, without links in it.
        folder: The folder, without links in it.

    Returns:
        True also where the two are the same.
    """
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
