"""Pictures of a folder: which are frames, by their names, and in which order."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path

from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.left_out import LeftOut

# A picture of this name is never a frame.
CONTACT_SHEET = "contact_sheet.png"
FILE_SUFFIXES = (".npy", ".npz", ".pkl")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".3gp")
OTHER_NAME = "picture of another name"
# Folders that file systems and archive programs make.
_NOT_DATA = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
# Two namings are two kinds of pictures if each has this share.
_SHARE_OF_A_KIND = 0.2


def pictures(folder: Path) -> list[Path]:
    """List the pictures in a folder, but for hidden ones and the contact sheet.

    Args:
        folder: The folder.

    Returns:
        Their paths, in natural order.

    Raises:
        OSError: The folder cannot be opened.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_picture(entry.name) and entry.is_file()]
    return [folder / name for name in sorted(names, key=natural)]


def is_picture(name: str) -> bool:
    """Tell whether a file name is that of a picture that may be a frame.

    Args:
        name: The name.

    Returns:
        True for the suffixes of pictures, but for hidden files and the contact sheet.
    """
    return name.lower().endswith(PICTURE_SUFFIXES) and not hidden(name) and name != CONTACT_SHEET


def frames_by_name(files: list[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Choose the pictures that follow the naming of most of them: equal names but for the digits.

    Args:
        files: The pictures of a folder.

    Returns:
        The frames, and the pictures of other names. Where no naming with digits has more than half of the pictures, all
        are frames.

    Raises:
        SilhouetteError: There are two kinds of pictures, and nobody can tell which one is meant.
    """
    naming = [_naming(file.name) for file in files]
    (first, n_first), *others = Counter(naming).most_common()
    if not others:
        return files, []
    second, n_second = others[0]
    if n_second >= 2 and n_second > _SHARE_OF_A_KIND * len(files) and "#" in first and "#" in second:
        raise SilhouetteError(
            f"{files[0].parent}: expected frames of one naming, got {n_first} called {first} and {n_second} called"
            f" {second}; keep one of them in this folder"
        )
    if 2 * n_first <= len(files) or "#" not in first:
        return files, []
    strays = [file for file, name in zip(files, naming, strict=True) if name != first]
    frames = [file for file, name in zip(files, naming, strict=True) if name == first]
    return frames, [
        LeftOut(str(stray), OTHER_NAME, f"{stray.name}, where frames are called {first}") for stray in strays
    ]


def _naming(name: str) -> str:
    return re.sub(r"\d+", "#", unicodedata.normalize("NFC", name).lower())


@lru_cache(maxsize=65536)
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Compute a sort key that puts `frame2` before `frame10`.

    Args:
        name: A name.

    Returns:
        The key.
    """
    pieces = re.split(r"(\d+)", name)
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in pieces if p)


def hidden(name: str) -> bool:
    """Tell whether a file or folder is none of the user's data.

    Args:
        name: Its name.

    Returns:
        True for names that begin with a dot, and for folders that file systems and archive programs make.
    """
    return name.startswith(".") or name in _NOT_DATA


def closed(error: OSError) -> str:
    """Say that a path cannot be opened, for the `got` of an error.

    Args:
        error: The system's error.

    Returns:
        The phrase, with the system's reason.
    """
    return f"one that cannot be opened ({error.strerror or reason_of(error)})"
