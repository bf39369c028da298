"""Content of files that are not what their name says, for the errors that name it."""

from __future__ import annotations

import string
from pathlib import Path

_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file (fetch it with: git lfs pull)"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"RIFF", "a RIFF file (WebP, AVI or WAV)"),
    (b"\x93NUMPY", "a .npy array"),
    (b"PK\x03\x04", "a zip archive (as .npz and files of torch.save are)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip file (unpack it first)"),
    (b"7z\xbc\xaf", "a 7z archive (unpack it first)"),
    (b"Rar!", "a RAR archive (unpack it first)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"ARROW1", "an Arrow file (a packed file is opened alone)"),
)
_TEXT = frozenset(string.printable.encode("ascii"))


def describe(path: Path) -> str:
    """Name what a file holds by its first bytes.

    Args:
        path: The file.

    Returns:
        A phrase such as `a JPEG picture`, or nothing where the content is unknown or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return ""
    if not head:
        return "an empty file"
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or head.lstrip()[:5].lower() == b"<html":
        return "a web page (a failed download?)"
    known = next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), "")
    return known or ("a text file" if _TEXT.issuperset(head) else "")


def described(path: Path, fallback: str) -> str:
    """Name what a file holds, for the `got` of an error.

    Args:
        path: The file.
        fallback: The phrase for unknown content.

    Returns:
        `a JPEG picture, which cannot be read as one`, or the fallback.
    """
    kind = describe(path)
    return f"{kind}, which cannot be read as one" if kind else fallback
