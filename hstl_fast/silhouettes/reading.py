"""A silhouette sequence read from a path: a folder of pictures, `.npy`, `.npz` or an OpenGait `.pkl`."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.arrays import open_array
from hstl_fast.silhouettes.collecting import ALIGNED_SIZES, Collector, Reading, read_whole
from hstl_fast.silhouettes.contents import describe
from hstl_fast.silhouettes.errors import SilhouetteError, SilhouetteWarning
from hstl_fast.silhouettes.finding import sequences_below
from hstl_fast.silhouettes.folders import FILE_SUFFIXES, closed, frames_by_name, hidden, natural, pictures
from hstl_fast.silhouettes.left_out import LeftOut, summary
from hstl_fast.silhouettes.pictures import read_picture
from hstl_fast.silhouettes.usable import FAR_LESS, FILLED, NO_BODY

UNREADABLE = "frame that cannot be read"
# A sequence is refused if more than this share of its pictures cannot be read.
MOST_UNREADABLE = 0.25


def read(path: str | os.PathLike[str], *, max_frames: int | None = None) -> NDArray[np.uint8]:
    """Read the sequence of one person as aligned silhouettes; a SilhouetteWarning says what was left out of it.

    Args:
        path: A folder of pictures, a `.npy`, a `.npz` or an OpenGait `.pkl`, as in `read_sequence`.
        max_frames: The number of frames to read at most, the first ones; None for all.

    Returns:
        Silhouettes `[T, 64, 64]` uint8, 0 background to 255 body.

    Raises:
        SilhouetteError: There is nothing at `path`, or it cannot be read as a sequence. It is a ValueError.
        ImportError: Pictures need Pillow, from the extra `[cli]`.
    """
    silhouettes, left_out = read_sequence(path, max_frames=max_frames)
    if left_out:
        warnings.warn(f"{os.fspath(path)}: {_said(left_out, len(silhouettes))}", SilhouetteWarning, stacklevel=2)
    return silhouettes


def _said(left_out: tuple[LeftOut, ...], kept: int) -> str:
    of_frames = (NO_BODY, FAR_LESS, FILLED, UNREADABLE)
    frames = [each for each in left_out if each.reason in of_frames]
    others = [each for each in left_out if each.reason not in of_frames]
    said = [f"{len(frames)} of {len(frames) + kept} frames are left out: {summary(frames)}"] if frames else []
    return ", ".join([*said, *([summary(others)] if others else [])])


def read_sequence(path: str | os.PathLike[str], *, max_frames: int | None = None) -> Reading:
    """Read the sequence of one person as aligned silhouettes, with what was left out of it.

    Values are bool; integers, 0/1 if nothing in the sequence is above 1, 0..255 if nothing is above 255, else 0..65535
    if the largest is 65280 or more; floats in 0..1 (to within 0.001); or floats that are whole numbers in 0..255.

    Frames of 64 x 64, and of 64 x 44 (padded by 10 columns on each side), stay as they are if most of them look
    aligned: the body reaches into the first and last 6 rows, and its median column is within 10 of the middle. All
    other frames are aligned as by `align`, one by one, so that their sizes may differ.

    Frames that show no person, as described at `align_sequence`, and pictures that cannot be read are left out.

    Args:
        path: A folder of pictures and no other sequences (PNG, JPEG, BMP or TIFF; frames in natural order of their
            names, and pictures of other names left out; grey, 1-bit, palette, RGB or RGBA), a `.npy`, a `.npz` (its
            only array, or the one called `silhouettes`), or an OpenGait `.pkl`, of which nothing but arrays is ever
            loaded: one array `[T, H, W]`, or a list of arrays `[H, W]`.
        max_frames: The number of frames to read at most, the first ones with a body; None for all. Pictures beyond it
            are not opened.

    Returns:
        Silhouettes `[T, 64, 64]` uint8, 0 background to 255 body, and what was left out: frames, pictures of other
        names, and notes where the sequence was aligned here, was cut, or has fewer than 5 usable frames. Frames of an
        array are named by their numbers, from 0.

    Raises:
        SilhouetteError: There is nothing at `path`, it cannot be read as a sequence, it shows no person, or more than a
            quarter of its pictures cannot be read. It is a ValueError.
        ValueError: `max_frames` is below 1.
        ImportError: Pictures need Pillow, from the extra `[cli]`.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    source = Path(path)
    try:
        mode = source.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise SilhouetteError(f"{source}: expected a silhouette sequence, got nothing there") from None
    except OSError as error:
        raise SilhouetteError(f"{source}: expected a silhouette sequence, got {closed(error)}") from error
    if stat.S_ISDIR(mode):
        return _read_folder(source, max_frames)
    if source.suffix.lower() not in FILE_SUFFIXES:
        kind = f"suffix {source.suffix}" if source.suffix else "a file without suffix"
        held = describe(source)
        raise SilhouetteError(
            f"{source}: expected a folder of pictures, .npy, .npz or .pkl, got {kind}{f', {held}' if held else ''}"
        )
    return _read_file(source, max_frames)


def _read_file(source: Path, limit: int | None) -> Reading:
    name = str(source)
    with open_array(source) as stored:
        if stored.whole is not None and stored.whole.shape[1:] in ALIGNED_SIZES:
            return read_whole(stored.whole, name, limit)
        collector = Collector(name, limit)
        frames = (frame for block in stored.blocks for frame in (block if block.ndim == 3 else block[None]))
        for number, frame in enumerate(frames):
            if collector.is_full:
                return collector.reading(stored.length, is_cut=True)
            collector.add(frame, f"{name}, frame {number}")
        return collector.reading(stored.length)


def _read_folder(folder: Path, limit: int | None) -> Reading:
    try:
        files, others = pictures(folder), sequences_below(folder)
    except OSError as error:
        raise SilhouetteError(f"{folder}: expected a folder of pictures, got {closed(error)}") from error
    if not files:
        raise SilhouetteError(f"{folder}: expected a folder of pictures, got {_what_else(folder, others)}")
    if others:
        both = f"{files[0].name} and {others[0].relative_to(folder).as_posix()}"
        raise SilhouetteError(f"{folder}: expected frames or sequences, got a folder with both ({both})")
    frames, strays = frames_by_name(files)
    collector = Collector(str(folder), limit)
    collector.left_out += strays
    is_cut = _collect(collector, frames)
    return collector.reading(len(frames), is_cut)


def _what_else(folder: Path, sequences: list[Path]) -> str:
    """Name what a folder without pictures holds, for the `got` of an error."""
    if sequences:
        return f"one of sequences, such as {sequences[0].relative_to(folder).as_posix()}; read each of them"
    names = sorted((path.name for path in folder.iterdir() if not hidden(path.name)), key=natural)
    return f"one with none, but with {names[0]}" if names else "an empty one"


def _collect(collector: Collector, frames: list[Path]) -> bool:
    """Decode frames until there are enough; tells whether some are left."""
    labels: set[int] = set()
    errors: list[str] = []
    for file in frames:
        if collector.is_full:
            return True
        try:
            picture = read_picture(file)
        except SilhouetteError as error:
            errors.append(str(error))
            collector.left_out.append(LeftOut(str(file), UNREADABLE, str(error)))
            _refuse_unreadable(collector.name, errors, len(frames))
            continue
        labels |= picture.labels
        if len(labels) > 1:
            raise SilhouetteError(
                f"{file}: expected masks of one person on background 0, got a palette with labels"
                f" {', '.join(map(str, sorted(labels)))}; save one mask a label"
            )
        collector.add(picture.pixels, str(file))
    return False


def _refuse_unreadable(name: str, errors: list[str], count: int) -> None:
    if len(errors) <= MOST_UNREADABLE * count:
        return
    raise SilhouetteError(
        f"{name}: expected frames, got at least {len(errors)} of {count} that cannot be read, the first: {errors[0]}"
    )
