"""Sources that are lost while they are packed: a disk that is gone is not a damaged file of a million."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from hstl_fast.data.layouts.walk import CLOSED
from hstl_fast.data.sequences import Sequences
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.silhouettes.reading import UNREADABLE as UNREADABLE_FRAME

# More sequences than this share, and than this number, that cannot be read are no accident.
MOST_UNREADABLE = 0.1
FEW_UNREADABLE = 4
# What decoders of damaged files raise; the system gives other numbers for a disk or a file that is gone.
_OF_DECODERS = (None, errno.EINVAL, errno.EBADF)
# A folder that is closed to us, or of an impossible path, is listed; other folders that cannot be opened are lost.
_CLOSED_FOR_GOOD = {os.strerror(number) for number in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)}


class LostSourceError(OSError):
    """A sequence that was found cannot be opened any more."""


def refuse_lost_folders(sequences: Sequences) -> None:
    """Check that all folders could be opened when sequences were looked for, other than for want of permission.

    Args:
        sequences: The data set.

    Raises:
        LostSourceError: One could not, so that any number of sequences is missing.
    """
    if sequences.layout == "packed":  # of which the list is an older one
        return
    for each in sequences.left_out:
        if each.reason == CLOSED and each.detail not in _CLOSED_FOR_GOOD:
            raise LostSourceError(errno.EIO, f"expected to open all folders, got {each.detail}", each.where)


def refuse_lost_sequence(name: str, error: BaseException | None) -> None:
    """Check that it is not the system that keeps a sequence from being read.

    Args:
        name: Name of the sequence.
        error: What reading it raised.

    Raises:
        LostSourceError: It is.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno not in _OF_DECODERS:
            raise _lost(name, error)
        error = error.__cause__ or error.__context__


def refuse_lost_frames(name: str, left_out: Iterable[LeftOut]) -> None:
    """Check that the frames that could not be read can be opened.

    Args:
        name: Name of the sequence.
        left_out: What was left out of it.

    Raises:
        LostSourceError: One cannot be opened.
    """
    for each in left_out:
        if each.reason == UNREADABLE_FRAME:
            try:
                Path(each.where).read_bytes()
            except OSError as error:
                raise _lost(name, error) from error


def _lost(name: str, error: OSError) -> LostSourceError:
    reason = error.strerror or str(error)
    return LostSourceError(error.errno, f"expected to open the sequence {name}, got {reason}", error.filename)
