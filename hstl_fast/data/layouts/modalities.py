"""Telling silhouettes from other modalities by the names of files that stand in one folder."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from hstl_fast.data.layouts.base import Candidate
from hstl_fast.data.layouts.walk import Entry, Walk
from hstl_fast.silhouettes.finding import NO_SILHOUETTES
from hstl_fast.silhouettes.folders import FILE_SUFFIXES

SILHOUETTES = {"sil", "sils", "silhouette", "silhouettes", "mask", "masks"}
OTHERS = re.compile(
    "pcds?|lidar|depths?|poses?|skes?|skeletons?|keypoints?|heatmaps?|rgbs?|ratios?|hw|smpls?|pars?|parsings?|"
    "(?:denoising)?fea|features?|flows?|geis?"
)
# Ranks of names: silhouettes, the best first; names that say nothing; other modalities.
UNKNOWN, OTHER = 8, 9


def recordings(walk: Walk, label: str, kind: str, view: str, folder: str, pattern: str | None) -> Iterator[Candidate]:
    """List the sequences of a folder `label/type/view`.

    One file is one sequence. Of several, those that are called silhouettes are taken, aligned before others, and not
    those thinned out to a LiDAR's rate (`sync`); where no name tells a modality, each file is a sequence.

    Args:
        walk: The listing.
        label: The person.
        kind: The recording.
        view: The camera.
        folder: The path of the folder below the root.
        pattern: A shell pattern of names to take instead, or None.

    Yields:
        The sequences.
    """
    entries = walk.entries(folder)
    usable = [entry for entry in entries if _is_usable(entry, view)]
    for entry in entries:
        if not _is_usable(entry, view):
            _leave_out(walk, entry)
    numbers = set(choose([entry.name for entry in usable], view, pattern))
    for i, entry in enumerate(usable):
        if i not in numbers:
            walk.leave_out_modality(entry.name, view, entry.path)
    chosen = [entry for i, entry in enumerate(usable) if i in numbers]
    chosen = [entry for entry in chosen if not entry.is_folder or walk.has_frames(entry.path)]
    if not chosen and entries:
        wanted = f"files that fit {pattern}" if pattern else "silhouettes"
        walk.leave_out(
            folder, NO_SILHOUETTES, f"expected {wanted}, got {', '.join(entry.name for entry in entries[:3])}"
        )
    for entry in chosen:
        yield Candidate(label, kind, view, entry.path, _stem(entry.name) if len(chosen) > 1 else "")


def choose(names: Sequence[str], view: str, pattern: str | None) -> list[int]:
    """Choose the silhouettes among files that stand in one folder.

    Args:
        names: Names of the files.
        view: Name of the folder; a file of that name says nothing about its modality.
        pattern: A shell pattern of names to take instead, or None.

    Returns:
        Indices of the names that are chosen.
    """
    if pattern is not None:
        return [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)]
    ranks = [rank(name, view) for name in names]
    best = min(ranks, default=OTHER)
    return [i for i, each in enumerate(ranks) if each == best] if best < OTHER else []


def rank(name: str, view: str) -> int:
    """Rank a file by how surely its name says that it holds aligned silhouettes.

    Args:
        name: Name of the file.
        view: Name of its folder.

    Returns:
        A number, the smaller the better; `UNKNOWN` for a name that says nothing, `OTHER` for another modality.
    """
    stem = _stem(name)
    words = set(re.findall(r"[a-z]+", stem.lower()))
    if stem == view:
        return UNKNOWN
    if any(OTHERS.fullmatch(word) for word in words):
        return OTHER
    if not words & SILHOUETTES:
        return UNKNOWN
    form = 0 if "aligned" in words else 2 if "raw" in words else 1
    return form + (3 if "sync" in words else 0)


def _is_usable(entry: Entry, view: str) -> bool:
    """Whether it may hold a sequence: a file of arrays, or a folder that is called as a modality is."""
    if entry.is_folder:
        return rank(entry.name, view) != UNKNOWN
    return PurePosixPath(entry.name).suffix.lower() in FILE_SUFFIXES


def _leave_out(walk: Walk, entry: Entry) -> None:
    if entry.is_folder:
        walk.leave_out(entry.path, NO_SILHOUETTES, "expected files of sequences, got a folder")
    else:
        walk.leave_out_file(entry)


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in FILE_SUFFIXES else name
