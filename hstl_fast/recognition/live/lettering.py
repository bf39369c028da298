"""Text for pictures: any letters that a font on this machine has."""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv, pillow_font

# Fonts with many letters that systems bring along, as Pillow finds them by name.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
    "PingFang.ttc",
)
# No font has a letter of this number; what is drawn for it is the sign for a missing letter.
NO_LETTER = "\uffff"
# Of OpenCV's text: pixels around it, and the height of a letter over the line in letters' sizes.
MARGIN, ASCENT = 2, 1.0
# A picture (width, height) that has room for any name.
ROOM = (10000, 100)


def written(text: str, size: int) -> NDArray[np.uint8]:
    """Draw a line of text.

    ASCII is drawn in the font that Pillow brings along. Other letters are drawn in a font of the system that has all of
    them, else in the fonts that OpenCV brings along from version 5 on (Latin, Greek, Cyrillic, Hebrew, Arabic, Chinese,
    Japanese, Korean; Arabic letters stand unjoined). Without both, letters lose their accents, and others become `?`.

    Args:
        text: The text, in one line.
        size: Height of a line in pixels.

    Returns:
        How much ink covers each pixel, uint8 `[h, w]`, 255 for all of it.

    Raises:
        ImportError: Pillow or OpenCV is missing; both come with the extra `[video]`.
    """
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    if text.isascii():
        return _by_pillow(text, _own_font(size))
    font = next((font for font in _system_fonts(size) if not _missing(font, text)), None)
    if font is not None:
        return _by_pillow(text, font)
    if hasattr(opencv(), "FontFace"):
        return _by_opencv(text, size)
    return _by_pillow(plain(text), _own_font(size))


def plain(text: str) -> str:
    """Bring a text to ASCII: letters without their accents, `?` for those of other alphabets."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in letters)


@functools.lru_cache(maxsize=8)
def _own_font(size: int) -> Any:
    return pillow_font().load_default(size)


@functools.lru_cache(maxsize=8)
def _system_fonts(size: int) -> tuple[Any, ...]:
    fonts = []
    for name in SYSTEM_FONTS:
        try:
            fonts.append(pillow_font().truetype(name, size))
        except OSError:
            continue
    return tuple(fonts)


def _missing(font: Any, text: str) -> bool:
    none = _ink(font, NO_LETTER)
    return any(np.array_equal(_ink(font, letter), none) for letter in set(text) if not letter.isspace())


def _ink(font: Any, text: str) -> NDArray[np.uint8]:
    mask = font.getmask(text)
    return np.asarray(mask, np.uint8).reshape(mask.size[::-1])


def _by_pillow(text: str, font: Any) -> NDArray[np.uint8]:
    """The text on a line as high as the font, so that texts stand on the same line."""
    left, top, right, bottom = font.getbbox(text)
    ascent, descent = font.getmetrics()
    ink = np.zeros((max(ascent + descent, int(bottom)), max(int(right), 1)), np.uint8)
    drawn = _ink(font, text)
    rows, columns = drawn.shape
    top, left = max(int(top), 0), max(int(left), 0)
    part = ink[top : top + rows, left : left + columns]
    part[:] = drawn[: part.shape[0], : part.shape[1]]
    return ink


def _by_opencv(text: str, size: int) -> NDArray[np.uint8]:
    cv2 = opencv()
    face = cv2.FontFace("uni")
    start = (MARGIN, round(ASCENT * size))
    _, _, width, _ = cv2.getTextSize(ROOM, text, start, face, size)
    ink = np.zeros((round(1.3 * size), width + 2 * MARGIN, 3), np.uint8)
    cv2.putText(ink, text, start, (255, 255, 255), face, size)
    return np.ascontiguousarray(ink[..., 0])
