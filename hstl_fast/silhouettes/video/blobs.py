"""Person-shaped blobs of foreground masks, and which blobs of neighbouring frames show the same person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv

# The height of a body over its width lies between these: from a person seen from the side with legs together to a long
# stride with swinging arms.
SLIMMEST, STOUTEST = 5.5, 1.2
# A body fills at least this share of its box.
EMPTIEST = 0.2
# Holes up to this share of the body are gaps in the mask (a coat of the background's colour), larger ones are real.
HOLE_SHARE = 0.04
# The largest connected component of a body holds at least this share of it.
WHOLENESS = 0.95
# Two blobs of neighbouring frames show one body when they share this much of the smaller one.
CONTACT_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Blob:
    """Connected foreground in one frame.

    Attributes:
        frame: Index of the frame.
        box: The bounding box (x, y, width, height) in pixels.
        area: Number of pixels of the mask.
        touches_border: Whether the box reaches the border of the image.
        looks_like_a_body: Whether the shape can be that of a standing person.
        packed: The mask packed to bits, since a long video has many of them.
    """

    frame: int
    box: tuple[int, int, int, int]
    area: int
    touches_border: bool
    looks_like_a_body: bool
    packed: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask, bool `[height, width]`."""
        _, _, width, height = self.box
        bits = np.unpackbits(self.packed, count=height * width)
        return bits.reshape(height, width).view(np.bool_)

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.box[3]


def find_blobs(mask: NDArray[np.bool_], frame: int, min_height: int) -> list[Blob]:
    """Find the blobs of a foreground mask.

    Args:
        mask: Foreground, bool `[H, W]`.
        frame: Index of the frame, which the blobs get.
        min_height: Smallest height to keep, in rows.

    Returns:
        The blobs; components that lie one above the other with a small gap are one blob.
    """
    cv2 = opencv()
    moving = mask.astype(np.uint8)
    reach = max(3, min_height // 5 | 1)
    joined = cv2.dilate(moving, np.ones((reach, 1), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    blobs = []
    for label in np.flatnonzero(stats[:, cv2.CC_STAT_HEIGHT] >= min_height):
        if label == 0:
            continue
        x, y, width, height = (int(v) for v in stats[label, : cv2.CC_STAT_AREA])
        window = np.s_[y : y + height, x : x + width]
        blob = _cut_out((labels[window] == label) & mask[window], (x, y), frame, mask.shape)
        if blob.height >= min_height:
            blobs.append(blob)
    return blobs


def join(pieces: list[Blob]) -> Blob:
    """Join blobs of one frame to one blob.

    Args:
        pieces: One blob or more.

    Returns:
        A blob that covers what the pieces cover.
    """
    x, y = min(p.box[0] for p in pieces), min(p.box[1] for p in pieces)
    right, bottom = max(p.box[0] + p.box[2] for p in pieces), max(p.box[1] + p.box[3] for p in pieces)
    body = np.zeros((bottom - y, right - x), bool)
    for piece in pieces:
        left, top, width, height = piece.box
        body[top - y : top - y + height, left - x : left - x + width] |= piece.mask
    border = any(p.touches_border for p in pieces)
    area = int(np.count_nonzero(body))
    box = x, y, right - x, bottom - y
    return Blob(pieces[0].frame, box, area, border, _looks_like_a_body(body), np.packbits(body))


def _cut_out(window: NDArray[np.bool_], origin: tuple[int, int], frame: int, image: tuple[int, ...]) -> Blob:
    window = _without_islands(window)
    rows, columns = np.flatnonzero(window.any(axis=1)), np.flatnonzero(window.any(axis=0))
    body = window[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y = origin[0] + int(columns[0]), origin[1] + int(rows[0])
    height, width = body.shape
    border = x <= 1 or y <= 1 or x + width >= image[1] - 1 or y + height >= image[0] - 1
    body = _fill_small_holes(body)
    area = int(np.count_nonzero(body))
    return Blob(frame, (x, y, width, height), area, border, _looks_like_a_body(body), np.packbits(body))


def _looks_like_a_body(mask: NDArray[np.bool_]) -> bool:
    """False for other shapes and for a torn body: of a person who stood still for long, or who walks behind a post."""
    height, width = mask.shape
    area = np.count_nonzero(mask)
    if not STOUTEST * width <= height <= SLIMMEST * width or area < EMPTIEST * height * width:
        return False
    cv2 = opencv()
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return bool(stats[1:, cv2.CC_STAT_AREA].max() >= WHOLENESS * area)


def _without_islands(window: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest component and those of a twentieth of its area or more: a head or leg that the mask cut off."""
    cv2 = opencv()
    _, labels, stats, _ = cv2.connectedComponentsWithStats(window.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = 1 + np.flatnonzero(areas >= 0.05 * areas.max())
    return np.isin(labels, kept)


def _fill_small_holes(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    cv2 = opencv()
    outside = np.pad(~body, 1, constant_values=True).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] <= HOLE_SHARE * np.count_nonzero(body))
    holes = np.isin(labels, small[small > 0]) & (labels != labels[0, 0])
    return np.asarray(body | holes[1:-1, 1:-1])


def overlaps(before: list[Blob], after: list[Blob]) -> NDArray[np.bool_]:
    """Tell which blobs of two neighbouring frames show the same body: bool `[len(before), len(after)]`."""
    shared = np.zeros((len(before), len(after)), dtype=bool)
    for i, a in enumerate(before):
        for j, b in enumerate(after):
            shared[i, j] = _common_pixels(a, b) >= CONTACT_SHARE * min(a.area, b.area)
    return shared


def _common_pixels(a: Blob, b: Blob) -> int:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.box, b.box
    left, top, right, bottom = max(ax, bx), max(ay, by), min(ax + aw, bx + bw), min(ay + ah, by + bh)
    if left >= right or top >= bottom:
        return 0
    in_a = a.mask[top - ay : bottom - ay, left - ax : right - ax]
    in_b = b.mask[top - by : bottom - by, left - bx : right - bx]
    return int(np.count_nonzero(in_a & in_b))
