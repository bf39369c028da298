"""Opening data sets: every layout, single files and packed files, as labelled sequences."""

from __future__ import annotations

import copy
import fnmatch
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hstl_fast.data.errors import DataError
from hstl_fast.data.layouts import FOLDERS, LAYOUTS, TREES
from hstl_fast.data.layouts.base import Candidate
from hstl_fast.data.layouts.pointers import without_pointers
from hstl_fast.data.layouts.recognition import Recognised, descend, recognise
from hstl_fast.data.layouts.walk import ARCHIVE_SUFFIXES, OTHER_MODALITY, Walk, composed
from hstl_fast.data.packed import open_packed
from hstl_fast.data.partitions import PARTITION_REASONS, compare, load_partition
from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.names import one_of
from hstl_fast.silhouettes.finding import find
from hstl_fast.silhouettes.folders import FILE_SUFFIXES, PICTURE_SUFFIXES, VIDEO_SUFFIXES
from hstl_fast.silhouettes.io import Reading, read_sequence
from hstl_fast.silhouettes.left_out import LeftOut

PACKED = "packed"
AUTO = "auto"
# Files that are neither a sequence nor packed, and what to do with them.
_OTHER_FILES = {
    VIDEO_SUFFIXES: "a video; `hstl-fast silhouettes` cuts its people out first",
    ARCHIVE_SUFFIXES: "an archive; unpack it first",
    PICTURE_SUFFIXES: "a single picture; give the folder of its sequence",
    (".json",): "a JSON file; a partition is given by --partition",
}


class _Listing(NamedTuple):
    """The sequences of one root, before they are sorted."""

    candidates: list[Candidate]
    left_out: list[LeftOut]
    notes: list[str]
    layout: str


def open_sequences(
    path: str | os.PathLike[str],
    layout: str = AUTO,
    partition: str | os.PathLike[str] | Partition | None = None,
    *,
    pattern: str | None = None,
    max_frames: int | None = None,
) -> Sequences:
    """Open a data set; its folders are listed, and its files are read when their sequences are.

    Args:
        path: A folder in one of `LAYOUTS`, also one or more single folders above it; a file of one sequence; or a
            packed file.
        layout: One of `LAYOUTS`, `packed`, or `auto`, which recognises the layout by names.
        partition: A partition, or a partition file; what it and the data do not share is listed in `left_out`.
        pattern: A shell pattern of file names, where several modalities stand in one folder; by default silhouettes
            are chosen by their names, aligned ones before others.
        max_frames: Read the first so many frames of a sequence; None for all.

    Returns:
        The sequences, in the order of their names.

    Raises:
        DataError: There is nothing at `path`, no sequence in it, or its layout is not clear; the message says which
            names `layout` may have.
        ValueError: `layout` is none of the names.
    """
    return open_together([path], layout, partition, pattern=pattern, max_frames=max_frames)


def open_together(
    paths: Sequence[str | os.PathLike[str]],
    layout: str = AUTO,
    partition: str | os.PathLike[str] | Partition | None = None,
    *,
    pattern: str | None = None,
    max_frames: int | None = None,
) -> Sequences:
    """Open several folders and files as one data set.

    Args:
        paths: Folders and files as in `open_sequences`; several must not include packed files. Of several, a file
            that holds no sequence is an error when it is read, so that the others can be.
        layout: As in `open_sequences`, the same for all.
        partition: As in `open_sequences`.
        pattern: As in `open_sequences`.
        max_frames: As in `open_sequences`.

    Returns:
        The sequences, in the order of their names.

    Raises:
        DataError: As in `open_sequences`.
        ValueError: `layout` is none of the names, or there is no path.
    """
    one_of(layout, (AUTO, *LAYOUTS, PACKED), "layout")
    roots = [Path(path) for path in paths]
    if not roots:
        raise ValueError("paths: expected at least one folder or file, got none")
    if layout == PACKED or (len(roots) == 1 and _is_packed(roots[0], layout)):
        return with_partition(_packed(roots), partition)
    listing = _joined(roots, layout, pattern)
    if not listing.candidates:
        raise DataError(_nothing(roots, listing, pattern))
    sequences = _FolderSequences(listing, ", ".join(str(root) for root in roots), max_frames)
    return with_partition(sequences, partition)


def with_partition(sequences: Sequences, partition: str | os.PathLike[str] | Partition | None) -> Sequences:
    """Give a data set a partition, and list what the two do not share.

    Args:
        sequences: The data set; it stays as it is.
        partition: A partition, a partition file, or None, which keeps the one that the data set has.

    Returns:
        The data set with the partition.

    Raises:
        DataError: The partition file is none.
    """
    if partition is None:
        return sequences
    chosen = partition if isinstance(partition, Partition) else load_partition(partition)
    divided = copy.copy(sequences)
    divided.partition = chosen
    missing = compare(sequences.items, chosen)
    others = (each for each in sequences.left_out if each.reason not in PARTITION_REASONS)
    divided.left_out = (*others, *missing)
    divided.notes = (*sequences.notes, *_other_zeros(sequences, chosen))
    return divided


class _FolderSequences(Sequences):
    """Sequences that are read from files and folders, one by one; it is small to pickle, and holds nothing open."""

    def __init__(self, listing: _Listing, source: str, max_frames: int | None) -> None:
        named, repeated = _named(listing.candidates)
        notes = [*listing.notes, *_label_notes([item.label for item, _ in named])]
        if repeated:
            notes.append(f"{repeated} sequences share their names with others and got a number at the end")
        super().__init__((item for item, _ in named), source, listing.layout, None, listing.left_out, notes)
        self._paths = tuple(path for _, path in named)
        self._max_frames = max_frames

    def reading(self, index: int) -> Reading:
        return read_sequence(self._paths[index], max_frames=self._max_frames)

    def path(self, index: int) -> str | None:
        return self._paths[index]


def _is_packed(root: Path, layout: str) -> bool:
    return layout == AUTO and root.is_file() and root.suffix.lower() not in FILE_SUFFIXES


def _packed(roots: list[Path]) -> Sequences:
    if len(roots) > 1:
        raise DataError(f"expected one packed file, got {len(roots)} paths: {', '.join(map(str, roots))}")
    for suffixes, got in _OTHER_FILES.items():
        if roots[0].name.lower().endswith(suffixes):
            raise DataError(f"{roots[0]}: expected a data set, a sequence or a packed file, got {got}")
    return open_packed(roots[0])


def _joined(roots: list[Path], layout: str, pattern: str | None) -> _Listing:
    """The listings of all roots; those of plain folders are named together, so that their names are unique."""
    once = {os.path.realpath(place.root): place for place in (_place(root, layout) for root in roots)}
    places = list(once.values())
    plain = [place.root for place in places if place.layout == FOLDERS]
    listings = [_tree(place, pattern) for place in places if place.layout != FOLDERS]
    if plain:
        listings.append(_plain(plain, pattern))
    layouts = list(dict.fromkeys(place.layout for place in places))
    return _Listing(
        [candidate for listing in listings for candidate in listing.candidates],
        [each for listing in listings for each in listing.left_out],
        [*(note for place in places for note in place.notes), *_repeated(roots, places)],
        ", ".join(layouts),
    )


def _repeated(roots: list[Path], places: list[Recognised]) -> list[str]:
    count = len(roots) - len(places)
    return [f"{count} of {len(roots)} inputs were named before and count once"] if count else []


def _place(root: Path, layout: str) -> Recognised:
    if not os.path.exists(root):  # noqa: PTH110 - Path.exists raises for some links
        got = "a link to nothing" if root.is_symlink() else "nothing there"
        raise DataError(f"{root}: expected a data set, got {got}")
    if not root.is_dir():
        if layout not in (AUTO, FOLDERS):
            raise DataError(f"{root}: expected a folder in the layout {layout}, got a file")
        return Recognised(FOLDERS, root)
    return recognise(root) if layout == AUTO else descend(root, layout)


def _tree(place: Recognised, pattern: str | None) -> _Listing:
    layout = TREES[place.layout]
    if pattern is not None and not layout.takes_pattern:
        raise DataError(
            f"{place.root}: a pattern (--pattern) chooses among files of one recording; expected none for the layout "
            f"{layout.name}, whose recordings are folders of frames, got {pattern!r}"
        )
    walk = Walk(str(place.root))
    listed = [each._replace(path=walk.whole(each.path)) for each in layout.candidates(walk, pattern)]
    left_out = walk.end()
    return _Listing(without_pointers(listed, left_out), left_out, [], layout.name)


def _plain(roots: list[Path], pattern: str | None) -> _Listing:
    candidates: list[Candidate] = []
    found = find(roots)
    left_out = list(found.left_out)
    for name, path in found.sequences:
        if pattern is not None and not fnmatch.fnmatchcase(path.name, pattern):
            left_out.append(LeftOut(str(path), OTHER_MODALITY, f"its name does not fit {pattern}"))
            continue
        label, kind, view, more = (*name.split("/", 3), "", "", "")[:4]
        candidates.append(Candidate(label, kind, view, str(path), more))
    return _Listing(without_pointers(candidates, left_out), left_out, [], FOLDERS)


def _named(candidates: Iterable[Candidate]) -> tuple[list[tuple[Item, str]], int]:
    """Sequences with unique names, in the order of the names, and how many had to be renamed."""
    counts: dict[str, int] = {}
    named = []
    for candidate in candidates:
        label, kind, view, more = (sys.intern(composed(part)) for part in (*candidate[:3], candidate.more))
        name = "/".join(part for part in (label, kind, view, more) if part)
        counts[name] = counts.get(name, 0) + 1
        if counts[name] > 1:
            name = f"{name}/{counts[name]}"
        named.append((Item(label, kind, view, name), candidate.path))
    named.sort(key=lambda pair: pair[0].name)
    return named, sum(count - 1 for count in counts.values())


def _label_notes(labels_of_sequences: list[str]) -> list[str]:
    notes = []
    labels = set(labels_of_sequences)
    numbers: dict[str, list[str]] = {}
    for label in sorted(labels):
        if label.isdecimal():
            numbers.setdefault(label.lstrip("0"), []).append(label)
    alike = [names for names in numbers.values() if len(names) > 1]
    if alike:
        shown = "; ".join(" and ".join(names) for names in alike[:3])
        notes.append(f"people whose numbers differ by leading zeros only count as different: {shown}")
    if len(labels) == 1 < len(labels_of_sequences):
        notes.append(
            f"all sequences are of one person, {next(iter(labels))}; if that is a folder around the people, open it"
        )
    return notes


def _other_zeros(sequences: Sequences, partition: Partition) -> list[str]:
    """A note where the partition and the data name the same numbers with other leading zeros."""
    named = {*partition.train, *partition.test}
    short = {label.lstrip("0") for label in named if label.isdecimal()}
    labels = set(sequences.labels) - named
    alike = sorted(label for label in labels if label.isdecimal() and label.lstrip("0") in short)
    if not alike:
        return []
    return [f"{len(alike)} people have other leading zeros in the partition than in the data, such as {alike[0]}"]


def _nothing(roots: list[Path], listing: _Listing, pattern: str | None) -> str:
    where = ", ".join(str(root) for root in roots)
    wanted = f"sequences whose files fit {pattern!r}" if pattern else "sequences"
    examples = {name: layout.example for name, layout in TREES.items()}
    expected = f", such as {examples[listing.layout]}" if listing.layout in examples else ""
    counts: dict[str, str] = {}
    for each in listing.left_out:
        counts.setdefault(each.reason, each.where)
    got = "; ".join(f"{reason}: {place}" for reason, place in list(counts.items())[:4]) or "nothing"
    return f"{where}: expected {wanted} in the layout {listing.layout}{expected}; got none ({got})"
