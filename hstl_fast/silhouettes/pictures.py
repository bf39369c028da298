"""One picture of a mask, decoded; the type of its content counts, not its suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.contents import describe
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of
from hstl_fast.silhouettes.extras import pillow

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
# A pixel is coloured if its brightest and its darkest channel differ by more than the colour noise of a JPEG.
COLOURED = 40
# A picture is coloured if this share of what is not black is.
COLOURED_SHARE = 0.02


class Picture(NamedTuple):
    """A decoded picture.

    Attributes:
        pixels: `[H, W]` bool (a mask), uint8, an integer type of 16 or 32 bits, or float32.
        labels: The indices other than 0 of a palette of colours, where index 0 is the background; else empty.
    """

    pixels: NDArray[np.generic]
    labels: frozenset[int] = frozenset()


def read_picture(file: Path) -> Picture:
    """Decode a picture of one mask.

    Grey pictures of any depth give their values. Where all used colours of a palette are grey, they give their greys;
    otherwise, and where only index 0 and one brighter index of a palette other than a ramp of greys are used, the index
    decides: 0 is background. A picture in one colour on black is a mask. Transparent is background.

    Args:
        file: A PNG, JPEG, BMP or TIFF, whatever its suffix.

    Returns:
        The picture.

    Raises:
        SilhouetteError: It cannot be read, is a stack of pictures, or is coloured.
        ImportError: Pillow is missing, from the extra `[cli]`.
    """
    image = pillow()
    try:
        with image.open(file, formats=list(FORMATS)) as picture:
            number = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            if number > 1:
                raise SilhouetteError(
                    f"{file}: expected a picture of one frame, got a stack of {number}; save each as a file of its own"
                )
            picture.load()
            return _decoded(picture, file)
    except SilhouetteError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        kind = describe(file)
        got = f"{kind} that cannot be read" if kind else "a file that cannot be read as one"
        raise SilhouetteError(f"{file}: expected a PNG, JPEG, BMP or TIFF, got {got} ({reason_of(error)})") from error


def _decoded(picture: Any, file: Path) -> Picture:
    if picture.mode == "1" or picture.mode in ("L", "F") or picture.mode.startswith("I"):
        return Picture(np.asarray(picture))
    if picture.mode == "P":
        return _indexed(picture)
    if picture.mode in ("LA", "La"):
        return Picture(_over_black(np.asarray(picture.convert("LA"), np.uint16)))
    rgba = np.asarray(picture.convert("RGBA"))
    if _is_coloured(rgba):
        return Picture(_one_colour(rgba, file))
    return Picture(_over_black(np.asarray(picture.convert("LA"), np.uint16)))


def _over_black(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return (pixels[..., 0] * pixels[..., 1] // 255).astype(np.uint8)


def _indexed(picture: Any) -> Picture:
    indices = np.asarray(picture)
    colours, opaque = _palette(picture)
    used = np.unique(indices)
    is_grey = colours.max(axis=1) == colours.min(axis=1)
    # A palette is one of labels, even where the label in use happens to be grey, unless its greys rise or fall.
    greys = colours[: len(picture.getpalette() or []) // 3, 0]
    is_ramp = is_grey.all() and len(greys) > 2 and ((np.diff(greys) >= 0).all() or (np.diff(greys) <= 0).all())
    is_mask = not is_ramp and len(used) == 2 and used[0] == 0 and colours[0].sum() < colours[used[1]].sum()
    if is_grey[used].all() and not is_mask:
        return Picture((colours[:, 0] * opaque // 255).astype(np.uint8)[indices])
    visible = (np.arange(256) > 0) & (opaque > 0)
    labels = used[visible[used]] if not is_grey.all() or len(greys) == 2 else []
    return Picture(visible[indices], frozenset(int(i) for i in labels))


def _palette(picture: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The colours `[256, 3]` of a palette and their opacities `[256]`, 0 to 255."""
    values = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)[:256]
    colours = np.zeros((256, 3), np.int64)
    colours[: len(values)] = values
    opaque = np.full(256, 255, np.int64)
    transparency = picture.info.get("transparency")
    if isinstance(transparency, int):
        opaque[transparency] = 0
    elif isinstance(transparency, bytes):
        opaque[: len(transparency)] = list(transparency[:256])
    return colours, opaque


def _is_coloured(rgba: NDArray[np.uint8]) -> bool:
    visible = rgba[..., :3].max(axis=2) > COLOURED
    visible &= rgba[..., 3] > 0
    channels = rgba[..., :3].astype(np.int16)
    coloured = (channels.max(axis=2) - channels.min(axis=2) > COLOURED) & visible
    return bool(coloured.sum() > COLOURED_SHARE * visible.sum())


def _one_colour(rgba: NDArray[np.uint8], file: Path) -> NDArray[np.bool_]:
    """The mask of a picture in one colour on black."""
    visible = np.asarray((rgba[..., :3].any(axis=2)) & (rgba[..., 3] > 0))
    colours = np.unique(rgba[visible][:, :3], axis=0)
    if len(colours) > 1:
        raise SilhouetteError(
            f"{file}: expected a silhouette, in grey or in one colour on black, got a picture of {len(colours)} colours"
        )
    return visible
