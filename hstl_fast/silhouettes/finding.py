"""Sequences under files and folders: where they are, what they are called, and what else was found beside them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hstl_fast.silhouettes.folders import CONTACT_SHEET, FILE_SUFFIXES, hidden, is_picture, natural, pictures
from hstl_fast.silhouettes.left_out import LeftOut

BESIDE_SEQUENCES = "picture beside sequences"
EMPTY_FOLDER = "empty folder"
NO_SILHOUETTES = "folder without silhouettes"
OTHER_KIND = "file of another kind"
LINK_ABOVE = "link to a folder above"
LINK_TWICE = "link to a folder that is read already"
BROKEN_LINK = "broken link"
# Names have five lengths, from 0 on.
LONGEST = 4
# What `hstl-fast silhouettes` writes beside tracks.
_OUTPUTS = (CONTACT_SHEET, "tracks.json")


class Found(NamedTuple):
    """Sequences under files and folders.

    Attributes:
        sequences: Pairs of name and path.
        left_out: What else was found: stray pictures, empty folders, files of other kinds, links that are not entered.
    """

    sequences: list[tuple[str, Path]]
    left_out: tuple[LeftOut, ...] = ()


class _Sequence(NamedTuple):
    """A sequence that was found under `root`; `real` is its path without links."""

    root: Path
    path: Path
    real: str
    is_folder: bool


class _Folder(NamedTuple):
    """A folder that is searched; `parent` is the place, in the order of the search, of the folder above."""

    path: Path
    real: str
    parent: int


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path looks like one sequence; no file is opened.

    Args:
        path: Any path.

    Returns:
        True for a file with a known suffix and for a folder with pictures in it.
    """
    source = Path(path)
    if source.is_dir():
        return bool(pictures(source))
    return source.is_file() and source.suffix.lower() in FILE_SUFFIXES and not hidden(source.name)


def find_sequences(inputs: Iterable[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """Find all sequences under files and folders, those of each folder in natural order, as `find` does.

    Args:
        inputs: Files and folders. One that is missing, of an unknown kind or without sequences is returned, too, so
            that `read` says what is wrong with it and the others can be processed.

    Returns:
        Pairs of name and path.

    Raises:
        ValueError: There is no input at all.
    """
    return find(inputs).sequences


def find(inputs: Iterable[str | os.PathLike[str]]) -> Found:
    """Find all sequences under files and folders, those of each folder in natural order, and what is beside them.

    A file, or a folder with pictures and no sequences below it, is one sequence, named after itself without suffix. Any
    other folder is searched, and each sequence in it is named by its path inside that folder, without suffix, with `/`
    between, in the composed form of Unicode (NFC). Pictures beside sequences are left out. Hidden files are skipped.
    Every folder is entered once, by its shortest path, so that links cannot lead in circles. Names are unique: where
    sequences would share one, the first component stays, and after it comes the folder that they were found in, or if
    that does not help their file name or their whole path: `ann/day1` and `ann/day2`.

    Args:
        inputs: Files and folders. One that is missing, of an unknown kind or without sequences counts as a sequence, so
            that `read` says what is wrong with it and the others can be processed.

    Returns:
        Pairs of name and path, and what was left out.

    Raises:
        ValueError: There is no input at all.
    """
    roots = [Path(i) for i in inputs]
    if not roots:
        raise ValueError("inputs: expected at least one file or folder, got none")
    found: dict[str, _Sequence] = {}
    left_out: list[LeftOut] = []
    for root in roots:
        search = _Search(root)
        for sequence in search.sequences or [_root(root)]:
            found.setdefault(sequence.real, sequence)
        left_out += search.left_out
    names = _unique_names(list(found.values()))
    pairs = [(name, sequence.path) for name, sequence in zip(names, found.values(), strict=True)]
    return Found(pairs, tuple(dict.fromkeys(left_out)))


def sequences_below(folder: Path) -> list[Path]:
    """List the sequences in a folder, other than its own pictures.

    Args:
        folder: The folder.

    Returns:
        Their paths, in natural order.

    Raises:
        OSError: The folder cannot be opened.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not hidden(entry.name) and _may_hold_sequences(entry)]
    if not names:
        return []
    return [sequence.path for sequence in _Search(folder).sequences if sequence.path != folder]


def _may_hold_sequences(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(FILE_SUFFIXES) or entry.is_dir()


def _root(root: Path) -> _Sequence:
    # Path.is_dir raises where the folder around may not be searched.
    return _Sequence(root, root, os.path.realpath(root), os.path.isdir(root))  # noqa: PTH112


class _Search:
    """The search of a file or folder, level by level, so that the shortest path to a folder is met first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: list[LeftOut] = []
        self.sequences: list[_Sequence] = []
        self._folders: list[_Folder] = []
        self._entered: set[str] = set()
        # Counts of pictures, of sequence files and of entries, by the number of the folder.
        self._pictures: list[int] = []
        self._files: list[int] = []
        self._entries: list[int] = []
        if _isdir(root):
            self._search()
            self.sequences.sort(key=lambda sequence: _order(sequence.path, root))
        elif _is_sequence_file(root):
            self.sequences.append(_root(root))

    def _search(self) -> None:
        level = [_Folder(self.root, os.path.realpath(self.root), -1)]
        while level:
            below: list[tuple[bool, _Folder]] = []
            for folder in level:
                if folder.real in self._entered:
                    self.left_out.append(LeftOut(str(folder.path), LINK_TWICE))
                else:
                    below += self._enter(folder)
            # A folder's own name comes before a link to it.
            level = [folder for _, folder in sorted(below, key=lambda pair: pair[0])]
        self._judge()

    def _enter(self, folder: _Folder) -> Iterator[tuple[bool, _Folder]]:
        """Look at what is in a folder; gives the folders in it, each with whether it is a link."""
        number = len(self._folders)
        self._entered.add(folder.real)
        self._folders.append(folder)
        for counts in (self._pictures, self._files, self._entries):
            counts.append(0)
        try:
            with os.scandir(folder.path) as scanned:
                entries = sorted((e for e in scanned if not hidden(e.name)), key=lambda e: natural(e.name))
        except OSError:
            # It counts as a sequence, so that `read` says why it is none.
            self._files[number] += 1
            self.sequences.append(_Sequence(self.root, folder.path, folder.real, True))
            return
        self._entries[number] = len(entries)
        for entry in entries:
            path, real = folder.path / entry.name, f"{folder.real.rstrip(os.sep)}{os.sep}{entry.name}"
            is_link = entry.is_symlink()
            if is_link:
                real = os.path.realpath(path)
            if _entry_isdir(entry):
                if folder.real == real or folder.real.startswith(f"{real.rstrip(os.sep)}{os.sep}"):
                    self.left_out.append(LeftOut(str(path), LINK_ABOVE))
                else:
                    yield is_link, _Folder(path, real, number)
            else:
                self._count_file(number, path, real)

    def _count_file(self, number: int, path: Path, real: str) -> None:
        if is_picture(path.name):
            self._pictures[number] += 1
        elif path.suffix.lower() in FILE_SUFFIXES:
            self._files[number] += 1
            self.sequences.append(_Sequence(self.root, path, real, False))
        elif path.name not in _OUTPUTS:
            self.left_out.append(LeftOut(str(path), OTHER_KIND if path.exists() else BROKEN_LINK))

    def _judge(self) -> None:
        """Decide, from the innermost folders outwards, which pictures are frames, and which folders are empty."""
        has_sequences = [count > 0 for count in self._files]
        is_leaf = [True] * len(self._folders)
        for number in reversed(range(len(self._folders))):
            folder = self._folders[number]
            if self._pictures[number] and has_sequences[number]:
                self.left_out += [LeftOut(str(picture), BESIDE_SEQUENCES) for picture in pictures(folder.path)]
            elif self._pictures[number]:
                has_sequences[number] = True
                self.sequences.append(_Sequence(self.root, folder.path, folder.real, True))
            elif is_leaf[number] and not has_sequences[number] and folder.parent >= 0:
                reason = NO_SILHOUETTES if self._entries[number] else EMPTY_FOLDER
                self.left_out.append(LeftOut(str(folder.path), reason))
            if folder.parent >= 0:
                has_sequences[folder.parent] |= has_sequences[number]
                is_leaf[folder.parent] = False


def _isdir(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where the folder around may not be searched


def _entry_isdir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_sequence_file(path: Path) -> bool:
    # os.path.isfile gives False where Path.is_file raises.
    return os.path.isfile(path) and path.suffix.lower() in FILE_SUFFIXES and not hidden(path.name)  # noqa: PTH113


def _order(path: Path, root: Path) -> list[tuple[tuple[int, int, str], ...]]:
    return [natural(part) for part in path.parts[len(root.parts) :]]


def _unique_names(sequences: list[_Sequence]) -> list[str]:
    """The shortest name of every sequence that no other has; paths that differ in the form of Unicode are numbered."""
    same: Counter[str] = Counter()
    numbers = []
    for sequence in sequences:
        composed = unicodedata.normalize("NFC", sequence.real)
        same[composed] += 1
        numbers.append(f"/{same[composed]}" if same[composed] > 1 else "")
    length = [0] * len(sequences)
    names = [_name(sequence, 0) + number for sequence, number in zip(sequences, numbers, strict=True)]
    while True:
        shared = Counter(names)
        longer = [i for i, name in enumerate(names) if shared[name] > 1 and length[i] < LONGEST]
        if not longer:
            return names
        for i in longer:
            length[i] += 1
            names[i] = _name(sequences[i], length[i]) + numbers[i]


def _name(sequence: _Sequence, length: int) -> str:
    """A name of a sequence: the shortest has length 0, the one of length `LONGEST` is unique.

    All begin alike, since the first component of a name is the person.
    """
    root, path, real = sequence.root, sequence.path, Path(sequence.real)
    is_root = path == root
    inside = () if is_root else path.parts[len(root.parts) :][:-1]
    own = real if is_root else path
    person, *rest = (*inside, own.name if sequence.is_folder else own.stem)
    where = "" if length == 0 else real.parent.name if is_root else Path(os.path.realpath(root)).name
    tail: Iterable[str] = {
        0: rest,
        1: (where, *rest),
        2: (where, *inside[1:], own.name),
        3: path.parts,
        LONGEST: real.parts,
    }[length]
    name = "/".join([person, *(part.strip("/") for part in tail if part.strip("/"))])
    return unicodedata.normalize("NFC", name)
