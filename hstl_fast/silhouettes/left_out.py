"""Records of things that a reader leaves out of data that it otherwise takes, so that commands can list them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
