"""Silhouette sequences on disk.

Folders of PNGs, `.npy`, `.npz` and OpenGait `.pkl` are read; folders of PNGs, `.npy` and `.npz` are written.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_file, atomic_folder
from hstl_fast.silhouettes.align import align_sequence, to_uint8
from hstl_fast.silhouettes.errors import SilhouetteError, SilhouetteWarning, reason_of
from hstl_fast.silhouettes.extras import pillow
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.silhouettes.pickles import load_array

SIZE = 64
NARROW = 44
KEY = "silhouettes"
# A picture of this name is never a frame.
CONTACT_SHEET = "contact_sheet.png"
FILE_SUFFIXES = (".npy", ".npz", ".pkl")


class Reading(NamedTuple):
    """A sequence, and what was left out of it.

    Attributes:
        silhouettes: Aligned silhouettes `[T, 64, 64]` uint8.
        left_out: The frames and files that were left out.
    """

    silhouettes: NDArray[np.uint8]
    left_out: tuple[LeftOut, ...] = ()


def read(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read the sequence of one person as aligned silhouettes.

    Arrays are `[T, H, W]`: uint8 (with nothing above 1 it counts as 0/1), bool, or floating 0..1. Frames of 64 x 64,
    and of 64 x 44 (padded by 10 columns on each side), count as aligned; frames of other sizes go through
    `align_sequence`, which leaves out those without a body, with a SilhouetteWarning.

    Args:
        path: A folder of PNGs and no other sequences (frames in natural order of their names, all of one size; grey,
            1-bit, palette, RGB or RGBA), a `.npy`, a `.npz` (its only array, or the one called `silhouettes`), or an
            OpenGait `.pkl`, of which nothing but arrays is ever loaded.

    Returns:
        Silhouettes `[T, 64, 64]` uint8, 0 background to 255 body.

    Raises:
        SilhouetteError: There is nothing at `path`, or it cannot be read as a sequence. It is a ValueError.
        ImportError: PNGs need Pillow, from the extra `[cli]`.
    """
    source = Path(path)
    try:
        is_folder, is_there = source.is_dir(), source.exists()
    except OSError as error:
        raise SilhouetteError(f"{source}: expected a silhouette sequence, got {_closed(error)}") from error
    if is_folder:
        return _aligned(_read_folder(source), str(source))
    if not is_there:
        raise SilhouetteError(f"{source}: expected a silhouette sequence, got nothing there")
    if source.suffix.lower() not in FILE_SUFFIXES:
        raise SilhouetteError(f"{source}: expected a folder of PNGs, .npy, .npz or .pkl, got {_kind(source)}")
    return _aligned(_read_file(source), str(source))


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path looks like one sequence; no file is opened.

    Args:
        path: Any path.

    Returns:
        True for a file with a known suffix and for a folder with PNGs in it.
    """
    source = Path(path)
    if source.is_dir():
        return bool(_frame_files(source))
    return source.is_file() and source.suffix.lower() in FILE_SUFFIXES and not _hidden(source)


def find_sequences(inputs: Iterable[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """Find all sequences under files and folders, those of each folder in natural order.

    A file, or a folder with PNGs, is one sequence, named after itself without suffix. Any other folder is searched, and
    each sequence in it is named by its path inside that folder, without suffix, with `/` between. Hidden files are
    skipped. Names are unique: where sequences would share one, the first component stays, and after it comes the folder
    that they were found in, or if that does not help their file name or their whole path: `ann/day1` and `ann/day2`.

    Args:
        inputs: Files and folders. One that is missing, of an unknown kind or without sequences is returned, too, so
            that `read` says what is wrong with it and the others can be processed.

    Returns:
        Pairs of name and path.

    Raises:
        ValueError: There is no input at all.
    """
    roots = [Path(i) for i in inputs]
    if not roots:
        raise ValueError("inputs: expected at least one file or folder, got none")
    found: dict[Path, tuple[Path, Path]] = {}
    for root in roots:
        for path in _sequences_at(root) or [root]:
            found.setdefault(path.resolve(), (root, path))
    names = _shortest_unique([_names(root, path) for root, path in found.values()])
    return [(name, path) for name, (_, path) in zip(names, found.values(), strict=True)]


def write(path: str | os.PathLike[str], silhouettes: NDArray[np.generic]) -> None:
    """Write a sequence atomically.

    Args:
        path: A `.npz` (compressed, with the key `silhouettes`), a `.npy`, or a name without suffix for a folder of PNGs
            `00000.png`, `00001.png`, ... A file is replaced; a folder that has something in it is refused.
        silhouettes: `[T, 64, 64]` or `[T, 64, 44]`, dtypes as in `read`.

    Raises:
        SilhouetteError: The shape, the dtype, the values or the suffix are others, or the folder is not empty.
        ImportError: PNGs need Pillow, from the extra `[cli]`.
    """
    target = Path(path)
    frames = _checked(silhouettes, str(target))
    if frames.shape[1:] != (SIZE, SIZE) and frames.shape[1:] != (SIZE, NARROW):
        raise SilhouetteError(f"{target}: expected silhouettes [T, 64, 64] or [T, 64, 44], got {list(frames.shape)}")
    writers = {".npz": _write_npz, ".npy": _write_npy, "": _write_folder}
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise SilhouetteError(
            f"{target}: expected .npz, .npy or a folder name without suffix, got suffix {target.suffix}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    writer(target, frames)


def _aligned(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    frames = _checked(array, name)
    if frames.shape[1:] == (SIZE, SIZE):
        return frames
    if frames.shape[1:] == (SIZE, NARROW):
        side = (SIZE - NARROW) // 2
        return np.pad(frames, ((0, 0), (0, 0), (side, side)))
    try:
        silhouettes, kept = align_sequence(frames)
    except SilhouetteError as error:
        raise SilhouetteError(f"{name}: {error}") from None
    if len(kept) < len(frames):
        left_out = f"{len(frames) - len(kept)} of {len(frames)} frames show no body and are left out"
        warnings.warn(f"{name}: {left_out}", SilhouetteWarning, stacklevel=3)
    return silhouettes


def _checked(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    if array.ndim != 3:
        raise SilhouetteError(f"{name}: expected an array [T, H, W], got shape {list(array.shape)}")
    if 0 in array.shape:
        raise SilhouetteError(
            f"{name}: expected at least one frame of at least one pixel, got shape {list(array.shape)}"
        )
    return to_uint8(array, name)


def _read_file(source: Path) -> NDArray[np.generic]:
    try:
        if source.suffix.lower() == ".pkl":
            return load_array(source)
        with source.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return _only_array(loaded, source) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except SilhouetteError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise SilhouetteError(
            f"{source}: expected a {source.suffix} file with an array, got one that cannot be read ({reason_of(error)})"
        ) from error


def _only_array(archive: np.lib.npyio.NpzFile, source: Path) -> NDArray[np.generic]:
    keys = archive.files
    if KEY not in keys and len(keys) != 1:
        held = ", ".join(keys) if keys else "none"
        raise SilhouetteError(f"{source}: expected one array or one called {KEY}, got {len(keys)} ({held})")
    array = archive[KEY if KEY in keys else keys[0]]
    if not isinstance(array, np.ndarray):
        raise SilhouetteError(f"{source}: expected an array in the archive, got one that cannot be read as such")
    return array


def _read_folder(folder: Path) -> NDArray[np.uint8]:
    try:
        files, others = _frame_files(folder), _inside(folder)
    except OSError as error:
        raise SilhouetteError(f"{folder}: expected a folder with PNGs, got {_closed(error)}") from error
    if not files:
        raise SilhouetteError(f"{folder}: expected a folder with PNGs, got one with none")
    if others:
        both = f"{files[0].name} and {others[0].relative_to(folder).as_posix()}"
        raise SilhouetteError(f"{folder}: expected frames or sequences, got a folder with both ({both})")
    frames = [_read_png(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.shape != frames[0].shape:
            expected, got = _by(frames[0].shape), _by(frame.shape)
            raise SilhouetteError(
                f"{file}: expected all frames of a folder to have one size, {expected} as {files[0].name}, got {got}"
            )
    return np.stack(frames)


def _read_png(file: Path) -> NDArray[np.uint8]:
    image = pillow()
    try:
        with image.open(file, formats=["PNG"]) as picture:
            picture.load()
            if picture.mode.startswith("I"):
                return (np.asarray(picture).astype(np.int64) // 257).clip(0, 255).astype(np.uint8)
            pixels = np.asarray(picture.convert("LA"), dtype=np.uint16)
    except Exception as error:  # a damaged file can fail in any way
        raise SilhouetteError(
            f"{file}: expected a PNG, got a file that cannot be read as one ({reason_of(error)})"
        ) from error
    return (pixels[..., 0] * pixels[..., 1] // 255).astype(np.uint8)


def _frame_files(folder: Path) -> list[Path]:
    pngs = (p for p in folder.iterdir() if p.suffix.lower() == ".png" and p.is_file())
    return sorted((p for p in pngs if not _hidden(p) and p.name != CONTACT_SHEET), key=_natural)


def _sequences_at(path: Path) -> list[Path]:
    """The sequence at `path` or those inside; a path that cannot be opened counts as one, and `read` says why."""
    try:
        if is_sequence(path):
            return [path]
        return _inside(path) if path.is_dir() else []
    except OSError:
        return [path]


def _inside(folder: Path) -> list[Path]:
    found: list[Path] = []
    for child in sorted(folder.iterdir(), key=_natural):
        if not _hidden(child):
            found += _sequences_at(child)
    return found


def _names(root: Path, path: Path) -> list[str]:
    """Names to choose from, the shortest first; the last one is unique.

    All begin alike, since the first component of a name is the person.
    """
    absolute = path.resolve()
    # Path.is_dir raises where the folder around may not be searched.
    stem = absolute.name if os.path.isdir(path) else absolute.stem  # noqa: PTH112
    inside = () if path == root else path.relative_to(root).parts[:-1]
    where = absolute.parent.name if path == root else root.resolve().name
    person, *rest = (*inside, stem)
    tails = [rest, [where, *rest], [where, *inside[1:], absolute.name], path.parts, absolute.parts]
    return ["/".join([person, *(part.strip("/") for part in tail if part.strip("/"))]) for tail in tails]


def _shortest_unique(choices: list[list[str]]) -> list[str]:
    """The first name of every sequence that no other sequence has."""
    level = [0] * len(choices)
    while True:
        names = [choice[k] for choice, k in zip(choices, level, strict=True)]
        shared = Counter(names)
        longer = [i for i, name in enumerate(names) if shared[name] > 1 and level[i] + 1 < len(choices[i])]
        if not longer:
            return names
        for i in longer:
            level[i] += 1


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A sort key that puts `frame2` before `frame10`."""
    pieces = re.split(r"(\d+)", path.name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in pieces if p]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _closed(error: OSError) -> str:
    return f"one that cannot be opened ({error.strerror or reason_of(error)})"


def _kind(path: Path) -> str:
    return f"suffix {path.suffix}" if path.suffix else "a file without suffix"


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _write_npz(target: Path, frames: NDArray[np.uint8]) -> None:
    with atomic_file(target) as draft, draft.open("wb") as file:
        np.savez_compressed(file, silhouettes=frames)


def _write_npy(target: Path, frames: NDArray[np.uint8]) -> None:
    with atomic_file(target) as draft, draft.open("wb") as file:
        np.save(file, frames, allow_pickle=False)


def _write_folder(target: Path, frames: NDArray[np.uint8]) -> None:
    image = pillow()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        got = "a file" if target.is_file() else "files in it"
        raise SilhouetteError(f"{target}: expected an empty folder or nothing there, got {got}")
    digits = max(5, len(str(len(frames) - 1)))
    with atomic_folder(target) as draft:
        for t, frame in enumerate(frames):
            image.fromarray(frame).save(draft / f"{t:0{digits}d}.png")
