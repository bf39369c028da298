"""Tests of whole tracks: whether they show one walking person, from their boxes and their aligned silhouettes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.align import BODY_THRESHOLD
from hstl_fast.silhouettes.video.rejections import MOTIONLESS, PAIR, RIGID

Boxes = NDArray[np.intp] | NDArray[np.float64]
# Somebody who walks gets this far within a track, in heights of the body, or grows or shrinks by this factor. In a
# short track so much per frame is enough.
FARTHEST, GROWTH = 0.35, 1.15
SLOWEST = 0.008
# Positions are smoothed by medians over this many frames.
SMOOTHING = 5
# In these rows of a silhouette, from the top, a walking body has its legs, and between them and the feet its shins.
LEGS, SHINS = slice(40, 64), slice(46, 62)
# The legs of a walker change at least this much over so many frames; it is the variance of their pixels over time.
LEAST_CHANGE, STEP = 0.035, 30
# Two heads: both stand out by so many rows of 64 from what is between them, at this height or higher.
VALLEY, LOWEST_HEAD = 5, 34
# Below a head there is a body: at least this share of the column down to the ground.
FILLED = 0.5
# These rows lie in the head; a median width from the first limit on is that of two heads side by side, from the second
# on if the legs agree.
HEAD, WIDE_HEAD, WIDISH_HEAD = slice(2, 6), 13.0, 10.5
# The legs of one person close at every step to less than this many columns; those of two people do not.
CLOSED_LEGS = 11.0
# Rows of the shins that show three legs or more, for the frame to count.
ROWS_WITH_THREE_LEGS = 2
# Shares of the frames with two heads, or with three legs, from which on a track shows two people.
TWO_HEADS_SHARE, THREE_LEGS_SHARE = 0.25, 0.15
# A frame is left out of a track where most frames of so many around it show two heads.
HEADS_WINDOW = 15


def objection(boxes: Boxes | None, silhouettes: NDArray[np.uint8], may_stand: bool = False) -> str:
    """Say why a track does not show one walking person.

    Args:
        boxes: Boxes `[K, 4]` (x, y, width, height) in pixels of one picture, K at least 1; None where places in
            different frames cannot be compared, so that the legs alone tell whether somebody walks.
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8.
        may_stand: Whether a walker may stand for a part of the track; else the legs change over the whole of it.

    Returns:
        One of the reasons MOTIONLESS, RIGID and PAIR, or nothing.
    """
    if boxes is not None and not moves(boxes):
        return MOTIONLESS
    change = largest_change_of_legs(silhouettes) if may_stand else change_of_legs(silhouettes)
    if change < LEAST_CHANGE * min(1.0, len(silhouettes) / STEP):
        return RIGID
    return PAIR if shows_two_people(silhouettes) else ""


def moves(boxes: Boxes) -> bool:
    """Tell whether a body leaves its place, or comes nearer or goes away.

    Args:
        boxes: Boxes `[K, 4]` (x, y, width, height) in pixels, K at least 1.

    Returns:
        Whether middle and feet get FARTHEST heights of the body apart (in a short track less), or the height changes by
        the factor GROWTH.
    """
    x, y, width, height = boxes.T.astype(np.float64)
    path = np.stack([_smooth(x + width / 2), _smooth(y + height)])
    farthest = float(np.hypot(*np.ptp(path, axis=1)))
    quarter = -(-len(boxes) // 4)
    growth = float(np.median(height[-quarter:]) / np.median(height[:quarter]))
    enough = min(FARTHEST, SLOWEST * len(boxes)) * float(np.median(height))
    return farthest >= enough or max(growth, 1 / growth) >= GROWTH


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    windows = np.lib.stride_tricks.sliding_window_view(values, min(SMOOTHING, len(values)))
    return np.asarray(np.median(windows, axis=-1))


def change_of_legs(silhouettes: NDArray[np.uint8]) -> float:
    """Measure how much the legs change over time.

    Args:
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8, K at least 1.

    Returns:
        The variance over time of the pixels (0 or 1) in the lower part, over their mean: from 0 (rigid) to 1.
    """
    share = (silhouettes[:, LEGS] >= BODY_THRESHOLD).mean(axis=0)
    return float((share * (1 - share)).sum() / max(share.sum(), 1e-9))


def largest_change_of_legs(silhouettes: NDArray[np.uint8]) -> float:
    """Measure how much the legs change in the part of a track in which they change most.

    Args:
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8, K at least 1.

    Returns:
        The largest `change_of_legs` over STEP frames.
    """
    starts = range(0, max(1, len(silhouettes) - STEP + 1), STEP // 3)
    parts = [silhouettes[start : start + STEP] for start in starts]
    return max(change_of_legs(part) for part in [*parts, silhouettes[-STEP:]])


def shows_two_people(silhouettes: NDArray[np.uint8]) -> bool:
    """Tell whether a track shows two people side by side: two heads, one wide head, or more than two legs.

    Args:
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8, K at least 1.

    Returns:
        Whether enough of the frames show two people.
    """
    bodies = silhouettes >= BODY_THRESHOLD
    head = float(np.median(bodies[:, HEAD].sum(axis=2).mean(axis=1)))
    shins = bodies[:, SHINS]
    apart = float(np.percentile(shins.sum(axis=2).mean(axis=1), 10)) >= CLOSED_LEGS
    legs = (np.diff(shins, axis=2, prepend=False) & shins).sum(axis=2)
    three_legs = ((legs >= 3).sum(axis=1) >= ROWS_WITH_THREE_LEGS).mean()
    return bool(
        two_heads(silhouettes).mean() >= TWO_HEADS_SHARE
        or head >= WIDE_HEAD
        or (apart and (head >= WIDISH_HEAD or three_legs >= THREE_LEGS_SHARE))
    )


def two_heads(silhouettes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell in which frames two heads stand out at the top.

    Args:
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8.

    Returns:
        Bool `[K]`.
    """
    bodies = silhouettes >= BODY_THRESHOLD
    tops = np.where(bodies.any(axis=1), silhouettes.shape[1] - bodies.argmax(axis=1), 0)
    heads = np.where(bodies.sum(axis=1) >= FILLED * tops, tops, 0)
    left = np.maximum.accumulate(heads, axis=1)
    right = np.maximum.accumulate(heads[:, ::-1], axis=1)[:, ::-1]
    lower = np.minimum(left, right)
    return np.asarray(((lower >= LOWEST_HEAD) & (lower - tops >= VALLEY)).any(axis=1))


def one_head(silhouettes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which frames of a track to keep: those around which most frames do not show two heads.

    Args:
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8.

    Returns:
        Bool `[K]`.
    """
    heads = two_heads(silhouettes).astype(np.float64)
    width = min(HEADS_WINDOW, len(heads))
    window = np.ones(width)
    around = np.convolve(heads, window, "same") / np.convolve(np.ones(len(heads)), window, "same")
    return around < 0.5
