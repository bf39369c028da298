"""How well tracks show the figures of a rendered scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.align import align
from tests.silhouettes.video.scenes import Scene


@dataclass(frozen=True)
class Found:
    """How well the tracks of a scene show one figure.

    Attributes:
        frames: Number of frames in which a track shows the figure.
        whole: Number of frames in which it is inside the picture and apart from others.
        tracks: Number of tracks that show it.
        iou: Mean over the frames found of the intersection over union of the aligned silhouettes, nan if none.
    """

    frames: int
    whole: int
    tracks: int
    iou: float


@dataclass(frozen=True)
class Score:
    """How well the tracks of a scene show its figures.

    Attributes:
        figures: One entry per figure.
        strangers: Number of silhouettes that show no figure.
    """

    figures: list[Found]
    strangers: int


def score(scene: Scene, tracks: Sequence[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]) -> Score:
    """Compare tracks with the true silhouettes.

    A silhouette shows the figure whose box has the largest intersection over union with its own, from 0.3 on.

    Args:
        scene: The scene.
        tracks: For each track the indices of its frames `[K]`, its boxes `[K, 4]` (x, y, width, height), and its
            aligned silhouettes `[K, 64, 64]` uint8.

    Returns:
        Frames found and the mean intersection over union, for every figure.
    """
    ious: list[dict[int, float]] = [{} for _ in scene.figures]
    shown: list[set[int]] = [set() for _ in scene.figures]
    strangers = 0
    for number, (frames, boxes, silhouettes) in enumerate(tracks):
        for frame, at, silhouette in zip(frames.tolist(), boxes.tolist(), silhouettes, strict=True):
            body = max(scene.bodies[frame], key=lambda b: box_iou(at, b.box), default=None)
            if body is None or box_iou(at, body.box) < 0.3:
                strangers += 1
                continue
            truth, seen = align(body.mask) >= 128, silhouette >= 128
            iou = float((truth & seen).sum() / (truth | seen).sum())
            ious[body.figure][frame] = max(iou, ious[body.figure].get(frame, 0.0))
            shown[body.figure].add(number)
    whole = [sum(bool(b.whole) for bodies in scene.bodies for b in bodies if b.figure == i) for i in range(len(ious))]
    return Score(
        [
            Found(len(found), whole[i], len(shown[i]), float(np.mean(list(found.values()))) if found else float("nan"))
            for i, found in enumerate(ious)
        ],
        strangers,
    )


def box_iou(a: Sequence[int], b: Sequence[int]) -> float:
    """Compute the intersection over union of two boxes (x, y, width, height)."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0, across) * max(0, down)
    return common / (a[2] * a[3] + b[2] * b[3] - common)
