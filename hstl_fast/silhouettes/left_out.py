"""Records of things that a reader leaves out of data that it otherwise takes, so that commands can list them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class LeftOut(NamedTuple):
    """One thing that was found and left out.

    Attributes:
        where: The file, folder or sequence.
        reason: A fixed phrase such as `empty folder`; what has the same reason is counted together.
        detail: A sentence that says what was expected and found, or nothing.
    """

    where: str
    reason: str
    detail: str = ""


def by_reason(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Count what was left out by its reason.

    Args:
        left_out: What was left out.

    Returns:
        Counts by reason, the most frequent first.
    """
    return dict(Counter(each.reason for each in left_out).most_common())


def summary(left_out: Iterable[LeftOut]) -> str:
    """Say what was left out in one line: the counts by reason, each with its first place or its detail.

    Args:
        left_out: What was left out.

    Returns:
        A line such as `2 x frame without a body (the first: frame 17), fewer than 5 usable frames (4 of 6)`.
    """
    everything = tuple(left_out)
    first = {each.reason: each for each in reversed(everything)}
    parts = []
    for reason, count in by_reason(everything).items():
        said = first[reason].detail or Path(first[reason].where).name.rpartition(", ")[2]
        parts.append(f"{count} x {reason} (the first: {said})" if count > 1 else f"{reason} ({said})")
    return ", ".join(parts)
