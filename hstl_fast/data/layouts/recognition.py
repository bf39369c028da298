"""Recognition of a data set's layout by the names in it: some of its folders are looked at, no file is opened."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hstl_fast.data.errors import DataError
from hstl_fast.data.layouts import FOLDERS, TREES, gait3d
from hstl_fast.data.layouts.base import Leaf
from hstl_fast.data.layouts.walk import ARCHIVE_SUFFIXES, inside
from hstl_fast.silhouettes.folders import FILE_SUFFIXES, PICTURE_SUFFIXES, closed, hidden, is_picture

# So many entries of a folder are looked at, so many folders at each depth are entered, and so many in all.
_MOST_ENTRIES = 4096
_BREADTH = (16, 6, 4, 2)
_BUDGET = 1500
_DEEPEST = 24
_MOST_FILES = 64
# A layout that so much of what was looked at fits is meant; one that less fits, but more than a little, may be meant.
_SURE, _PARTLY = 0.9, 0.2
_MOST_CHILDREN, _CHILD_BUDGET = 64, 100
# Folders of these names are parts of a data set, not people.
_PARTS = {"train", "training", "test", "testing", "val", "validation", "gallery", "probe", "query", "distractor"}


class Recognised(NamedTuple):
    """A layout that was recognised.

    Attributes:
        layout: Its name.
        root: The folder of the data set, the one that was given or one in it.
        notes: Sentences about how it was found.
    """

    layout: str
    root: Path
    notes: tuple[str, ...] = ()


def recognise(root: Path) -> Recognised:
    """Find out how a folder is laid out; a data set in single folders below it is found, too.

    Args:
        root: The folder.

    Returns:
        The layout, the folder of the data set, and notes.

    Raises:
        DataError: The layout is not clear, several data sets stand below, or there is no sequence.
    """
    places = leaves(root)
    if not places:
        raise DataError(f"{root}: expected silhouette sequences, got {_instead(root)}")
    recognised = _at(root, places) or _below(root)
    if recognised is not None:
        return recognised
    _refuse_parts(root, places)
    _refuse_one_person(root, places)
    return Recognised(FOLDERS, root)


def descend(root: Path, layout: str) -> Recognised:
    """Find the data set of a layout that was named, in a folder or in single folders below it.

    Args:
        root: The folder.
        layout: Name of the layout.

    Returns:
        The layout, and the folder below which it fits best; the one given where it fits nowhere.
    """
    if layout == FOLDERS:
        return Recognised(layout, root)
    folder, above = root, []
    while True:
        if _share(layout, leaves(folder)) >= _PARTLY:
            return Recognised(layout, folder, _descended(root, folder))
        above.append(folder)
        folders = _filled(folder)
        named = [name for name in folders if layout == gait3d.LAYOUT.name and name == gait3d.SILHOUETTES]
        if len(named or folders) != 1 or len(above) > _DEEPEST:
            return Recognised(layout, root)
        folder = folder / (named or folders)[0]


def leaves(root: Path, most: int = _BUDGET) -> list[Leaf]:
    """Look at some of the folders with data in them.

    Args:
        root: The folder to look in.
        most: The number of folders to list at most.

    Returns:
        Folders with pictures or files of sequences, spread over the data set; a folder that has such folders below it
        is none of them.
    """
    return _leaves(str(root), (), iter(range(most)))


def _leaves(folder: str, above: tuple[str, ...], budget: Iterator[int]) -> list[Leaf]:
    if len(above) > _DEEPEST or next(budget, None) is None:
        return []
    folders, files = _look(folder)
    breadth = _BREADTH[min(len(above), len(_BREADTH) - 1)]
    below = [
        leaf
        for name in _spread(folders, breadth)
        for leaf in _leaves(os.path.join(folder, name), (*above, name), budget)  # noqa: PTH118
    ]
    if below:
        return below
    data = tuple(name for name in files if is_picture(name) or name.lower().endswith(FILE_SUFFIXES))
    if data:
        return [Leaf(above, data[:_MOST_FILES])]
    # Where a few folders are empty, the next ones may not be.
    tried = set(_spread(folders, breadth))
    for name in folders:
        if name in tried:
            continue
        found = _leaves(os.path.join(folder, name), (*above, name), budget)  # noqa: PTH118
        if found:
            return found
    return []


def _look(folder: str) -> tuple[list[str], list[str]]:
    """Names of the folders and files in a folder, without links to folders above it; no more than a fixed number."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as listing:
            for entry in itertools.islice(listing, _MOST_ENTRIES):
                if hidden(entry.name):
                    continue
                if _is_folder(entry):
                    if not entry.is_symlink() or not inside(os.path.realpath(folder), os.path.realpath(entry.path)):
                        folders.append(entry.name)
                elif len(files) < _MOST_FILES or entry.name.lower().endswith(PICTURE_SUFFIXES + FILE_SUFFIXES):
                    files.append(entry.name)
    except OSError:
        return [], []
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _filled(folder: Path) -> list[str]:
    """Names of the folders in a folder; where they are few, of those with data in them."""
    folders, _ = _look(str(folder))
    if 1 < len(folders) <= _MOST_CHILDREN:
        return [name for name in folders if leaves(folder / name, _CHILD_BUDGET)]
    return folders


def _spread(names: list[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread."""
    if len(names) <= most:
        return names
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)] if most > 1 else names[:1]


def _share(layout: str, places: list[Leaf]) -> float:
    return sum(TREES[layout].fits(leaf) for leaf in places) / len(places) if places else 0.0


def _at(root: Path, places: list[Leaf]) -> Recognised | None:
    """The layout of the folder itself, or None where no known layout fits at all."""
    shares = {name: _share(name, places) for name in TREES}
    sure = [name for name, share in shares.items() if share >= _SURE]
    if len(sure) == 1:
        return Recognised(sure[0], root)
    partly = sure or [name for name, share in shares.items() if share >= _PARTLY]
    if not partly:
        return None
    seen = ", ".join(f"{name} ({100 * shares[name]:.0f} % of what was looked at)" for name in partly)
    example = next(leaf for leaf in places if not all(TREES[name].fits(leaf) for name in partly))
    other = "/".join((*example.folders, example.files[0]))
    names = " or ".join(f"--layout {name}" for name in dict.fromkeys([*partly, FOLDERS]))
    raise DataError(f"{root}: expected one layout, got a folder that may be {seen}, but has {other}; name it: {names}")


def _below(root: Path) -> Recognised | None:
    """The data set in single folders below, or None; several data sets are refused."""
    folder = root
    for _ in range(_DEEPEST):
        folders = _filled(folder)
        if gait3d.SILHOUETTES in folders:
            found = _at(folder / gait3d.SILHOUETTES, leaves(folder / gait3d.SILHOUETTES))
            return found and found._replace(notes=_descended(root, found.root))
        if len(folders) != 1:
            break
        folder = folder / folders[0]
        found = _at(folder, leaves(folder))
        if found is not None:
            return found._replace(notes=_descended(root, folder))
    _refuse_several(root, folder, folders)
    return None


def _refuse_several(root: Path, folder: Path, folders: list[str]) -> None:
    if not 1 < len(folders) <= _MOST_CHILDREN:
        return
    found = {}
    for name in folders:
        places = leaves(folder / name, _CHILD_BUDGET)
        fitting = [layout for layout in TREES if _share(layout, places) >= _SURE]
        if fitting:
            found[folder / name] = fitting[0]
    if found:
        listed = ", ".join(f"{path} ({layout})" for path, layout in found.items())
        raise DataError(
            f"{root}: expected one data set, got a folder with {len(folders)} folders, of which these look like data "
            f"sets: {listed}; open one of them, or name the layout of the whole with --layout {FOLDERS}"
        )


def _refuse_parts(root: Path, places: list[Leaf]) -> None:
    first = {leaf.folders[0].lower() for leaf in places if len(leaf.folders) > 1}
    if first and first <= _PARTS:
        raise DataError(
            f"{root}: expected folders of people, got {', '.join(sorted(first))}; open one of them, or name "
            f"each of them to open them together, or if these are people name the layout: --layout {FOLDERS}"
        )


def _refuse_one_person(root: Path, places: list[Leaf]) -> None:
    for name, layout in TREES.items():
        if sum(layout.of_one_person(leaf) for leaf in places) >= _SURE * len(places):
            first = "/".join(places[0].folders)
            raise DataError(
                f"{root}: expected a data set, got what looks like the folder of one person of the layout {name} "
                f"({first}); open the folder that it stands in, or if these are people name --layout {FOLDERS}"
            )


def _descended(root: Path, folder: Path) -> tuple[str, ...]:
    if folder == root:
        return ()
    return (f"the data set stands in {folder}, below the folder that was named",)


def _instead(root: Path) -> str:
    folders, files = _look(str(root))
    if not folders and not files:
        try:
            with os.scandir(root):
                return "an empty folder"
        except OSError as error:
            return closed(error)
    archives = [name for name in files if name.lower().endswith(ARCHIVE_SUFFIXES)]
    if archives:
        return f"{len(archives)} archives such as {archives[0]}; unpack them first"
    shown = ", ".join([f"{name}/" for name in folders[:3]] + files[:3])
    return f"a folder without any ({len(folders)} folders, {len(files)} files: {shown})"
