"""Clips: what one has to be, its digest, and its silhouettes as a gallery stores them."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hstl_fast.models import HSTL
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.records import Clip

# Fewer silhouettes say nothing about a walk: `hstl_fast.silhouettes` warns below the same number.
MIN_FRAMES = 5
_SIZE = 64
_EFFORT = 6


def check_clips(clips: Iterable[Clip]) -> list[Clip]:
    """Check that walks can be embedded.

    Args:
        clips: The walks.

    Returns:
        The clips as a list.

    Raises:
        GalleryError: There is none, or one has fewer than 5 silhouettes with a body, other sizes than 64 x 64, another
            type than uint8, or a frame rate that is no positive number; the message names it.
    """
    if isinstance(clips, Clip):
        raise GalleryError("clips must be several clips, such as a list; got one Clip, so pass [clip]")
    checked = list(clips)
    if not checked:
        raise GalleryError("clips must hold at least one clip; got none")
    for clip in checked:
        _check(clip)
    return checked


def _check(clip: Clip) -> None:
    frames = clip.silhouettes
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.shape[1:] != (_SIZE, _SIZE):
        found = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise GalleryError(f"{clip.source}: silhouettes must be uint8 [T, {_SIZE}, {_SIZE}]; got {found}")
    usable = int(frames.any(axis=(1, 2)).sum())
    if usable < MIN_FRAMES:
        raise GalleryError(
            f"{clip.source}: at least {MIN_FRAMES} silhouettes are needed to tell how somebody walks, better 30 or "
            f"more; got {usable}"
        )
    if clip.fps is not None and not (math.isfinite(clip.fps) and clip.fps > 0):
        raise GalleryError(f"{clip.source}: fps must be a positive number or None; got {clip.fps}")


def embed(model: HSTL, clips: list[Clip]) -> NDArray[np.float32]:
    """Embed clips that were checked.

    Args:
        model: The network.
        clips: The walks.

    Returns:
        Embeddings `[n, P, C]` float32.

    Raises:
        GalleryError: The network gives NaN or infinity for a clip; the message names it.
    """
    vectors: NDArray[np.float32] = model.embed(clip.silhouettes for clip in clips).float().cpu().numpy()
    finite = np.isfinite(vectors).all(axis=(1, 2))
    if not finite.all():
        raise GalleryError(f"{clips[int(finite.argmin())].source}: the network gives an embedding with NaN or infinity")
    return vectors


def digest(silhouettes: NDArray[np.uint8]) -> str:
    """Compute what tells whether two clips are the same walk.

    Args:
        silhouettes: `[T, 64, 64]` uint8.

    Returns:
        The SHA-256 digest of the frames, as hexadecimal digits.
    """
    return hashlib.sha256(np.ascontiguousarray(silhouettes).data).hexdigest()


def compressed(silhouettes: NDArray[np.uint8]) -> bytes:
    """Compress silhouettes.

    Args:
        silhouettes: `[T, 64, 64]` uint8.

    Returns:
        Their bytes, frame after frame and row after row, as a stream of zlib, which has a checksum.
    """
    return zlib.compress(np.ascontiguousarray(silhouettes).data, _EFFORT)


def decompressed(data: bytes, frames: int) -> NDArray[np.uint8]:
    """Read compressed silhouettes.

    Args:
        data: What `compressed` gave.
        frames: The number of frames.

    Returns:
        `[frames, 64, 64]` uint8.

    Raises:
        ValueError: The data is damaged, or not so many frames.
    """
    size = frames * _SIZE * _SIZE
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"compressed silhouettes are damaged: {error}") from error
    if len(plain) != size or not reader.eof:
        raise ValueError(f"compressed silhouettes must be {frames} frames of {_SIZE} x {_SIZE}; got something else")
    return np.frombuffer(plain, np.uint8).reshape(frames, _SIZE, _SIZE)
