"""Silhouette sequences written to disk: `.npz`, `.npy` and folders of PNGs, each complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_file, atomic_folder
from hstl_fast.silhouettes.collecting import ALIGNED_SIZES
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.extras import pillow
from hstl_fast.silhouettes.values import to_uint8


def write(path: str | os.PathLike[str], silhouettes: NDArray[np.generic]) -> None:
    """Write a sequence atomically.

    Args:
        path: A `.npz` (compressed, with the key `silhouettes`), a `.npy`, or a name without suffix for a folder of PNGs
            `00000.png`, `00001.png`, ... A file is replaced; a folder that has something in it is refused.
        silhouettes: `[T, 64, 64]` or `[T, 64, 44]`, values as in `read_sequence`.

    Raises:
        SilhouetteError: The shape, the dtype, the values or the suffix are others, or the folder is not empty.
        ImportError: PNGs need Pillow, from the extra `[cli]`.
    """
    target = Path(path)
    frames = _checked(silhouettes, str(target))
    if frames.shape[1:] not in ALIGNED_SIZES:
        raise SilhouetteError(f"{target}: expected silhouettes [T, 64, 64] or [T, 64, 44], got {list(frames.shape)}")
    writers = {".npz": _write_npz, ".npy": _write_npy, "": _write_folder}
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise SilhouetteError(
            f"{target}: expected .npz, .npy or a folder name without suffix, got suffix {target.suffix}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    writer(target, frames)


def _checked(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    if array.ndim != 3:
        raise SilhouetteError(f"{name}: expected an array [T, H, W], got shape {list(array.shape)}")
    if 0 in array.shape:
        raise SilhouetteError(
            f"{name}: expected at least one frame of at least one pixel, got shape {list(array.shape)}"
        )
    return to_uint8(array, name)


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
