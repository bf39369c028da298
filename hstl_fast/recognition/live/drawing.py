"""Pictures of a live recognition: boxes, names, distances, rate and delay."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.live.events import Seen, Update
from hstl_fast.recognition.live.lettering import written
from hstl_fast.silhouettes.extras import opencv

Picture = NDArray[np.uint8]
# Smaller pictures are enlarged to this height, so that there is room for text.
LEAST_HEIGHT = 240
# A line of text is this share of the picture's height, but never lower than so many pixels.
LINE_SHARE, LEAST_LINE = 1 / 32, 13
# A longer name is cut.
LONGEST_NAME = 24
# Colours as BGR: somebody with a name, nobody whom the gallery knows, not known yet; of text and of what is behind it.
NAMED, NOBODY, UNKNOWN = (80, 200, 60), (40, 140, 255), (190, 190, 190)
INK, PAPER = (255, 255, 255), (24, 24, 24)
# The share of a picture that stays behind text.
SEE_THROUGH = 0.3
# Pixels between text and the edges of its paper.
PADDING = 3


class _Box(NamedTuple):
    """Left, top, right and bottom in pixels; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: _Box) -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)


def draw(update: Update) -> Picture:
    """Draw what is known about a frame into a copy of it.

    Everybody gets a box and a label: the name or "nobody", the distance to the nearest person, and how much farther
    the second is; before there is an answer, the number of frames so far. The first line says frames a second, delay,
    and dropped frames.

    Args:
        update: The frame with what it brought.

    Returns:
        BGR uint8 `[H, W, 3]`, or a whole number of times larger where the frame has fewer than 240 rows.

    Raises:
        ImportError: OpenCV or Pillow is missing; both come with the extra `[video]`.
    """
    cv2 = opencv()
    times = max(1, math.ceil(LEAST_HEIGHT / update.frame.image.shape[0]))
    if times > 1:
        picture = cv2.resize(update.frame.image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    else:
        picture = update.frame.image.copy()
    size = max(LEAST_LINE, round(LINE_SHARE * picture.shape[0]))
    taken = [_put(picture, label((_state(update),), size), (0, 0), INK)]
    boxes = [_enlarged(seen.box, times, picture) for seen in update.seen]
    for seen, box in zip(update.seen, boxes, strict=True):
        thickness = max(1, round(size / 8))
        cv2.rectangle(picture, box[:2], (box.right - 1, box.bottom - 1), colour(seen), thickness)
    for seen, box in zip(update.seen, boxes, strict=True):
        text = label(lines(seen), size)
        taken.append(_put(picture, text, _free(box, text.shape, picture.shape, taken), colour(seen)))
    return np.asarray(picture)


def lines(seen: Seen) -> tuple[str, ...]:
    """Write the label of a person.

    Args:
        seen: The person.

    Returns:
        The lines: the name, then distance and margin; or the number of frames so far.
    """
    if seen.answer is None:
        return (f"{seen.frames} frames",)
    name = seen.answer.name or "nobody"
    first = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 2] + ".."
    if not seen.answer.matches:
        return (first,)
    margin = "" if seen.answer.margin is None else f" +{seen.answer.margin:.2f}"
    return (first, f"{seen.answer.matches[0].distance:.2f}{margin}")


def colour(seen: Seen) -> tuple[int, int, int]:
    """Choose the colour of a person's box, BGR."""
    if seen.answer is None:
        return UNKNOWN
    return NOBODY if seen.answer.name is None else NAMED


def _state(update: Update) -> str:
    dropped = f"  {update.dropped} dropped" if update.dropped else ""
    return f"{update.fps:.1f} frames/s  {1000 * update.delay:.0f} ms{dropped}"


@functools.lru_cache(maxsize=64)
def label(text: tuple[str, ...], size: int) -> Picture:
    """Draw lines of text below one another.

    Args:
        text: The lines.
        size: Height of a line in pixels.

    Returns:
        How much ink covers each pixel, uint8 `[h, w]`.
    """
    drawn = [written(line, size) for line in text]
    width = max(line.shape[1] for line in drawn)
    rows = [np.pad(line, ((0, 0), (0, width - line.shape[1]))) for line in drawn]
    return np.pad(np.vstack(rows), PADDING)


def _enlarged(box: tuple[int, int, int, int], times: int, picture: Picture) -> _Box:
    """The part of a box that lies in the picture."""
    height, width = picture.shape[:2]
    left, top, right, bottom = (times * value for value in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return _Box(left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height))


def _free(box: _Box, text: tuple[int, ...], picture: tuple[int, ...], taken: list[_Box]) -> tuple[int, int]:
    """A place for a label: over the box, under it, in it, or beside it, where no label is; over it if there is none."""
    height, width = text[:2]
    places = [
        (box.left, box.top - height),
        (box.left, box.bottom),
        (box.left, box.top),
        (box.right, box.top),
        (box.left - width, box.top),
    ]
    inside = [_inside(place, text, picture) for place in places]
    wanted = [place for place, moved in zip(places, inside, strict=True) if place[1] == moved[1]] + inside
    for place in wanted:
        left, top = _inside(place, text, picture)
        if not any(_Box(left, top, left + width, top + height).meets(other) for other in taken):
            return left, top
    return inside[0]


def _inside(place: tuple[int, int], text: tuple[int, ...], picture: tuple[int, ...]) -> tuple[int, int]:
    left, top = place
    return max(0, min(left, picture[1] - text[1])), max(0, min(top, picture[0] - text[0]))


def _put(picture: Picture, ink: Picture, place: tuple[int, int], edge: tuple[int, int, int]) -> _Box:
    """Put a label into a picture, with a line of a colour at its left; return where it is."""
    left, top = place
    part = picture[top : top + ink.shape[0], left : left + ink.shape[1]]
    covered = (ink[: part.shape[0], : part.shape[1], None] / 255).astype(np.float32)
    paper = SEE_THROUGH * part + (1 - SEE_THROUGH) * np.array(PAPER, np.float32)
    part[:] = (covered * np.array(INK, np.float32) + (1 - covered) * paper).round().astype(np.uint8)
    part[:, :PADDING] = np.where(covered[:, :PADDING] > 0, part[:, :PADDING], np.array(edge, np.uint8))
    return _Box(left, top, left + part.shape[1], top + part.shape[0])
