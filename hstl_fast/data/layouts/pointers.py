"""Files of a repository with Git LFS that were not fetched: small texts in place of the data."""

from __future__ import annotations

from pathlib import Path

from hstl_fast.data.layouts.base import Candidate
from hstl_fast.silhouettes.contents import describe
from hstl_fast.silhouettes.folders import FILE_SUFFIXES
from hstl_fast.silhouettes.left_out import LeftOut

POINTER = "Git LFS pointer in place of the file (git lfs pull fetches it)"
_LONGEST = 1024
# So many files are looked into; only where one of them is a pointer, all are.
_SAMPLE = 16


def without_pointers(candidates: list[Candidate], left_out: list[LeftOut]) -> list[Candidate]:
    """Leave out sequences whose files are pointers.

    Args:
        candidates: The sequences, with whole paths.
        left_out: A list that gets the pointers.

    Returns:
        The other sequences.
    """
    files = [i for i, each in enumerate(candidates) if each.path.lower().endswith(FILE_SUFFIXES)]
    step = max(1, len(files) // _SAMPLE)
    if not any(_is_pointer(candidates[i].path) for i in files[::step]):
        return candidates
    pointers = {i for i in files if _is_pointer(candidates[i].path)}
    left_out += [LeftOut(candidates[i].path, POINTER) for i in sorted(pointers)]
    return [each for i, each in enumerate(candidates) if i not in pointers]


def _is_pointer(path: str) -> bool:
    source = Path(path)
    return source.stat().st_size <= _LONGEST and "Git LFS pointer" in describe(source)
