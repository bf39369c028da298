"""Tracking: the blobs of all frames become runs of blobs of one person each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import byte_track
from hstl_fast.silhouettes.video.blobs import Blob, overlaps

# A track goes on over this many missing frames in a row; after more it is cut.
MAX_GAP = 3
# The tracker is given this many nanoseconds per frame; its clock only has to be regular.
TICK_NS = 10**9
# A box overlaps the place where the tracker expects it by at least this much (intersection over union).
OVERLAP_GATE = 0.1
# The usual height and area of a body are medians over this many frames around one.
WINDOW = 15
# A frame is dropped when its body is off its usual height or area by more than these factors.
HEIGHT_TOLERANCE, AREA_TOLERANCE = 1.12, 1.6
# A body is dropped when it is off the height of others who stood at its place by more than this factor.
PERSPECTIVE_TOLERANCE = 1.3
# Heights are compared over the image once there are this many bodies.
PERSPECTIVE_BLOBS = 100


@dataclass(frozen=True, eq=False)
class _Sighting:
    """A blob in its frame.

    Attributes:
        blob: The blob.
        joint: Whether it holds two people or more.
        starts: Whether its body is part of a joint blob in the frame before, in which people cannot be told apart.
        ends: Whether its body is part of a joint blob in the frame after.
    """

    blob: Blob
    joint: bool
    starts: bool
    ends: bool


def track_people(blobs: list[list[Blob]]) -> list[list[Blob]]:
    """Group blobs into clean runs of one person each.

    A run ends where a body touches another one (until they part again), where it leaves the image and where it is gone
    for more than MAX_GAP frames; single frames with a body of odd shape or size are left out.

    Args:
        blobs: The blobs of every frame.

    Returns:
        Runs of any length, in order of appearance.
    """
    usual = _Perspective([b for frame in blobs for b in frame if b.looks_like_a_body and not b.touches_border])
    runs = []
    for track in _follow(_sightings(blobs)):
        for run in _single_person_runs(track):
            bodies = [b for b in run if b.looks_like_a_body and not b.touches_border and usual.admits(b)]
            steady = _steady(bodies)
            runs += [steady[piece] for piece in gapless([b.frame for b in steady])]
    return sorted(runs, key=lambda run: (run[0].frame, run[0].box))


def _sightings(blobs: list[list[Blob]]) -> list[list[_Sighting]]:
    links = [overlaps(before, after) for before, after in pairwise(blobs)]
    counts = [len(frame) for frame in blobs]
    merged = _joint_since_merging(links, counts)
    parting = _joint_since_merging([link.T for link in reversed(links)], counts[::-1])[::-1]
    joint = [m | p for m, p in zip(merged, parting, strict=True)]
    starts = [np.zeros(n, dtype=bool) for n in counts]
    ends = [np.zeros(n, dtype=bool) for n in counts]
    for t, link in enumerate(links):
        starts[t + 1] = np.any(link & joint[t][:, None], axis=0)
        ends[t] = np.any(link & joint[t + 1], axis=1)
    return [
        [_Sighting(*seen) for seen in zip(*frame, strict=True)]
        for frame in zip(blobs, joint, starts, ends, strict=True)
    ]


def _joint_since_merging(links: list[NDArray[np.bool_]], counts: list[int]) -> list[NDArray[np.bool_]]:
    """The blobs of each frame that hold several bodies because blobs ran together before and have not parted since."""
    joint = [np.zeros(count, dtype=bool) for count in counts]
    for t, link in enumerate(links):
        unparted = joint[t] & (link.sum(axis=1) == 1)
        joint[t + 1] = (link.sum(axis=0) >= 2) | (link & unparted[:, None]).any(axis=0)
    return joint


def _follow(frames: list[list[_Sighting]]) -> list[list[_Sighting]]:
    """Sightings grouped by the identity that ByteTrack gives them."""
    # update=1: the filter follows the boxes without lag, since blobs are measured to the pixel
    tracker = byte_track()(high_conf=0.5, iou=OVERLAP_GATE, update=1.0, lifespan_ns=(MAX_GAP + 1) * TICK_NS)
    tracks: dict[str, list[_Sighting]] = {}
    for t, sightings in enumerate(frames):
        boxes = np.array([_corners(s.blob) for s in sightings], dtype=np.float32).reshape(-1, 4)
        scores, labels = np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.uintp)
        for sighting, info in zip(sightings, tracker.update(boxes, scores, labels, t * TICK_NS), strict=True):
            if info is not None:
                tracks.setdefault(info.uuid, []).append(sighting)
    return list(tracks.values())


def _corners(blob: Blob) -> tuple[int, int, int, int]:
    x, y, width, height = blob.box
    return x, y, x + width, y + height


def _single_person_runs(track: list[_Sighting]) -> list[list[Blob]]:
    """The parts of a track in which its blob is one person, cut wherever it was part of a joint blob in between."""
    runs: list[list[Blob]] = [[]]
    for sighting in track:
        if sighting.joint or sighting.starts:
            runs.append([])
        if not sighting.joint:
            runs[-1].append(sighting.blob)
        if sighting.ends:
            runs.append([])
    return [run for run in runs if run]


class _Perspective:
    """The height of a standing person as a function of the place of the feet.

    The function is a plane fitted to all bodies, since the camera does not move.
    """

    def __init__(self, bodies: list[Blob]) -> None:
        self._plane: NDArray[np.float64] | None = None
        if len(bodies) < PERSPECTIVE_BLOBS:
            return
        places = np.array([self._place(b) for b in bodies])
        heights = np.array([b.height for b in bodies], dtype=np.float64)
        weights = np.ones(len(bodies))
        for _ in range(20):  # least absolute deviations: blobs of two people must not pull the plane
            plane = np.linalg.lstsq(places * weights[:, None], heights * weights, rcond=None)[0]
            weights = 1 / np.sqrt(np.maximum(1.0, np.abs(places @ plane - heights)))
        self._plane = np.asarray(plane, dtype=np.float64)

    def admits(self, body: Blob) -> bool:
        """Tell whether a body has about the height of others at its place; True while there are too few others."""
        if self._plane is None:
            return True
        expected = float(self._place(body) @ self._plane)
        return expected / PERSPECTIVE_TOLERANCE <= body.height <= expected * PERSPECTIVE_TOLERANCE

    @staticmethod
    def _place(body: Blob) -> NDArray[np.float64]:
        x, y, width, height = body.box
        return np.array([x + width / 2, y + height, 1.0])


def _steady(bodies: list[Blob]) -> list[Blob]:
    """The bodies whose height and area are near the running medians of the run."""
    heights = np.array([b.height for b in bodies], dtype=np.float64)
    areas = np.array([b.area for b in bodies], dtype=np.float64)
    steady = _near_median(heights, HEIGHT_TOLERANCE) & _near_median(areas, AREA_TOLERANCE)
    return [b for b, ok in zip(bodies, steady, strict=True) if ok]


def _near_median(values: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    half = WINDOW // 2
    usual = np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])
    return (values <= usual * tolerance) & (values * tolerance >= usual)


def gapless(frames: Sequence[int]) -> list[slice]:
    """Cut increasing frame numbers into slices within which no more than MAX_GAP in a row are missing."""
    cuts = np.flatnonzero(np.diff(frames) > MAX_GAP + 1) + 1
    ends = [0, *cuts.tolist(), len(frames)]
    return [slice(a, b) for a, b in pairwise(ends) if a < b]
