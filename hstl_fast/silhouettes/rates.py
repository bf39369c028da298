"""Frame rates that are stored beside silhouettes, as `hstl-fast silhouettes` stores them."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

KEY = "fps"
# numpy and zipfile raise these for a file that is damaged or of another kind.
_UNREADABLE = (OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error)


def stored_rate(path: str | os.PathLike[str] | None) -> float:
    """Find the frame rate of a sequence.

    Args:
        path: The file or folder of the sequence, or None where it has none of its own.

    Returns:
        Frames per second: the number called `fps` in an `.npz`; NaN where there is none that is positive and finite.
    """
    if path is None or Path(path).suffix.lower() != ".npz":
        return math.nan
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            rate = float(arrays[KEY].item()) if KEY in arrays else math.nan
    except _UNREADABLE:  # the reader of the silhouettes says what is wrong with the file
        return math.nan
    return rate if 0 < rate < math.inf else math.nan
