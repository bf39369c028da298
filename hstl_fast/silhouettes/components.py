"""The body in a mask: its connected pieces, without specks of noise far from it. Needs numpy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A pixel at least this bright belongs to the body when its top and bottom rows are searched.
BODY_THRESHOLD = 128
# A piece belongs to the body if its area is at least this share of the largest piece's area, ...
BIG_PIECE = 0.05
# ... or if it is smaller (a foot, a lost head) but above or below: at most this share of the body's height away, and
# beside the body's columns by no more than that share.
SMALL_PIECE, NEAR, BESIDE = 0.005, 0.25, 0.05


class Pieces(NamedTuple):
    """Connected pieces of a mask, arrays of one entry a piece.

    Attributes:
        area: Numbers of pixels.
        top: First rows.
        bottom: Last rows.
        left: First columns.
        right: Last columns.
    """

    area: NDArray[np.intp]
    top: NDArray[np.intp]
    bottom: NDArray[np.intp]
    left: NDArray[np.intp]
    right: NDArray[np.intp]


class Body(NamedTuple):
    """The place of a body in a mask.

    Attributes:
        top: Its first row.
        bottom: Its last row.
        area: The number of its pixels.
        largest: The number of pixels of its largest piece.
    """

    top: int
    bottom: int
    area: int
    largest: int

    @property
    def height(self) -> int:
        """The number of its rows."""
        return self.bottom - self.top + 1


def find_body(mask: NDArray[np.uint8]) -> Body | None:
    """Find the body in a mask.

    It consists of the largest connected piece, of pieces of at least a twentieth of its area, and of pieces of at least
    a two-hundredth that are above or below, within a quarter of its height. Other pieces are noise and do not determine
    its rows.

    Args:
        mask: `[H, W]` uint8, 0 background to 255 body.

    Returns:
        The body, or None where no pixel is 128 or more.
    """
    bright = mask >= BODY_THRESHOLD
    rows = np.flatnonzero(bright.any(axis=1))
    if len(rows) == 0:
        return None
    bright = bright[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(bright.any(axis=0))
    pieces = connected_pieces(bright[:, columns[0] : columns[-1] + 1])
    belongs = _belonging(pieces)
    top, bottom = pieces.top[belongs].min(), pieces.bottom[belongs].max()
    area = pieces.area[belongs].sum()
    return Body(int(rows[0] + top), int(rows[0] + bottom), int(area), int(pieces.area.max()))


def _belonging(pieces: Pieces) -> NDArray[np.bool_]:
    largest = pieces.area.max()
    big = pieces.area >= BIG_PIECE * largest
    top, bottom = pieces.top[big].min(), pieces.bottom[big].max()
    left, right = pieces.left[big].min(), pieces.right[big].max()
    down = np.maximum(top - pieces.bottom, pieces.top - bottom)
    across = np.maximum(left - pieces.right, pieces.left - right)
    height = bottom - top + 1
    near = (down <= NEAR * height) & (across <= BESIDE * height)
    return np.asarray(big | (near & (pieces.area >= SMALL_PIECE * largest)))


def find_bright_rows(mask: NDArray[np.uint8]) -> Body | None:
    """Find the rows of a mask with any pixel of 128 or more, specks included.

    Args:
        mask: `[H, W]` uint8, 0 background to 255 body.

    Returns:
        All such pixels as a body, or None where there are none.
    """
    counts = (mask >= BODY_THRESHOLD).sum(axis=1)
    rows = np.flatnonzero(counts)
    return Body(int(rows[0]), int(rows[-1]), int(counts.sum()), int(counts.sum())) if len(rows) else None


def connected_pieces(mask: NDArray[np.bool_]) -> Pieces:
    """Find the 8-connected pieces of a mask, by joining the runs of neighbouring rows.

    Args:
        mask: `[H, W]`.

    Returns:
        The pieces.
    """
    # A column of background before each row keeps the runs of different rows apart.
    width = mask.shape[1] + 1
    flat = np.zeros(mask.shape[0] * width + 1, np.bool_)
    flat[:-1].reshape(mask.shape[0], width)[:, 1:] = mask
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    piece = _joined(starts, ends, width)
    count = int(piece.max(initial=-1)) + 1
    row = starts // width
    first = np.full((2, count), flat.size)
    last = np.full((2, count), -1)
    for extreme, ufunc, values in (
        (first[0], np.minimum, row),
        (last[0], np.maximum, row),
        (first[1], np.minimum, starts - row * width - 1),
        (last[1], np.maximum, ends - row * width - 2),
    ):
        ufunc.at(extreme, piece, values)
    area = np.zeros(count, np.intp)
    np.add.at(area, piece, ends - starts)
    return Pieces(area, first[0], last[0], first[1], last[1])


def _joined(starts: NDArray[np.intp], ends: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """The number of the piece of each run; runs are flat positions from `starts` up to, and without, `ends`."""
    # Runs of the next row that touch a run, diagonally too, stand side by side.
    low, high = np.searchsorted(ends, starts + width), np.searchsorted(starts, ends + width, side="right")
    count = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(starts)), count)
    below = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    # Each run hangs on the first one above that it touches; what it touches besides joins two trees.
    tree = np.arange(len(starts))
    tree[below[::-1]] = above[::-1]
    others = tree[below] != above
    tree = _to_the_roots(tree)
    one, other = tree[above[others]], tree[below[others]]
    while (one != other).any():
        lowest = np.minimum(one, other)
        np.minimum.at(tree, one, lowest)
        np.minimum.at(tree, other, lowest)
        tree = _to_the_roots(tree)
        one, other = tree[one], tree[other]
    is_root = tree == np.arange(len(tree))
    return np.asarray((np.cumsum(is_root) - 1)[tree])


def _to_the_roots(tree: NDArray[np.intp]) -> NDArray[np.intp]:
    """The root of every node of a forest, whose nodes name the node above."""
    while True:
        higher = tree[tree]
        if (higher == tree).all():
            return tree
        tree = higher
