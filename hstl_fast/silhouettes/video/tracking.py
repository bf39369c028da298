"""Tracking: the blobs of all frames become runs of blobs of one person each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import byte_track
from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.pieces import Links, between_people, mend
from hstl_fast.silhouettes.video.rejections import AT_THE_BORDER, NO_BODY, TOUCHING, UNSTEADY, Rejections

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
# Where the height changes at once by more than this factor, another part of the body is seen.
STEP = 1.25
# The growth of somebody who walks towards the camera is measured over this many bodies.
GROWTH_SPAN = 4


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


@dataclass(frozen=True, eq=False)
class Passage:
    """The way of one person through the picture, as long as he is apart from others.

    Attributes:
        bodies: His blobs, of any shape, at most one for each frame.
        runs: Clean runs among them: whole bodies of a steady size, without gaps of more than MAX_GAP frames.
    """

    bodies: list[Blob]
    runs: list[list[Blob]]


def track_people(blobs: list[list[Blob]], rejections: Rejections | None = None) -> list[list[Blob]]:
    """Group blobs into clean runs of one person each.

    A run ends where a body touches another one (until they part again), where it leaves the image and where it is gone
    for more than MAX_GAP frames; single frames with a body of odd shape or size are left out. A body that is torn for
    some frames goes on afterwards.

    Args:
        blobs: The blobs of every frame.
        rejections: Counts the bodies that are left out, by reason.

    Returns:
        Runs of any length, in order of appearance.
    """
    runs = [run for passage in follow_people(blobs, rejections) for run in passage.runs]
    return sorted(runs, key=lambda run: (run[0].frame, run[0].box))


def follow_people(blobs: list[list[Blob]], rejections: Rejections | None = None) -> list[Passage]:
    """Group blobs into the passages of people, each with its clean runs as `track_people` gives them.

    Args:
        blobs: The blobs of every frame.
        rejections: Counts the bodies that are left out, by reason.

    Returns:
        The passages, in no particular order.
    """
    counts = Rejections() if rejections is None else rejections
    passages = []
    for track in _follow(_sightings(*mend(blobs))):
        for bodies in _single_person_runs(track, counts):
            steady = _steady([b for b in bodies if _is_whole(b, counts)], counts)
            parts = _without_pieces(_cut_at_steps(steady), counts)
            runs = [whole[piece] for whole in parts for piece in gapless([b.frame for b in whole])]
            passages.append(Passage(bodies, runs))
    return passages


def _is_whole(body: Blob, rejections: Rejections) -> bool:
    reason = AT_THE_BORDER if body.touches_border else "" if body.looks_like_a_body else NO_BODY
    if reason:
        rejections[reason] += 1
    return not reason


def _sightings(blobs: list[list[Blob]], links: Links) -> list[list[_Sighting]]:
    meetings, partings = between_people(blobs, links)
    counts = [len(frame) for frame in blobs]
    merged = _joint_since_merging(links, meetings, partings, counts)
    parting = _joint_since_merging(_backwards(links), _backwards(partings), _backwards(meetings), counts[::-1])[::-1]
    joint = [m | p for m, p in zip(merged, parting, strict=True)]
    starts = [np.zeros(n, dtype=bool) for n in counts]
    ends = [np.zeros(n, dtype=bool) for n in counts]
    for t in range(len(meetings)):
        link = meetings[t] & partings[t]
        starts[t + 1] = np.any(link & joint[t][:, None], axis=0)
        ends[t] = np.any(link & joint[t + 1], axis=1)
    return [
        [_Sighting(*seen) for seen in zip(*frame, strict=True)]
        for frame in zip(blobs, joint, starts, ends, strict=True)
    ]


def _backwards(links: Links) -> Links:
    return [link.T for link in reversed(links)]


def _joint_since_merging(links: Links, meetings: Links, partings: Links, counts: list[int]) -> list[NDArray[np.bool_]]:
    """The blobs of each frame that hold several bodies because blobs ran together before and have not parted since."""
    joint = [np.zeros(count, dtype=bool) for count in counts]
    for t, (link, meeting, parting) in enumerate(zip(links, meetings, partings, strict=True)):
        unparted = joint[t] & (link.sum(axis=1) == 1)
        joint[t + 1] = (meeting.sum(axis=0) >= 2) | (meeting & parting & unparted[:, None]).any(axis=0)
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


def _single_person_runs(track: list[_Sighting], rejections: Rejections) -> list[list[Blob]]:
    """The parts of a track in which its blob is one person, cut wherever it was part of a joint blob in between."""
    runs: list[list[Blob]] = [[]]
    for sighting in track:
        if sighting.joint or sighting.starts:
            runs.append([])
        if sighting.joint:
            rejections[TOUCHING] += 1
        else:
            runs[-1].append(sighting.blob)
        if sighting.ends:
            runs.append([])
    return [run for run in runs if run]


def _steady(bodies: list[Blob], rejections: Rejections) -> list[Blob]:
    """The bodies whose height and area are near what is usual around them in the run."""
    frames = np.array([b.frame for b in bodies], dtype=np.float64)
    heights = np.array([b.height for b in bodies], dtype=np.float64)
    areas = np.array([b.area for b in bodies], dtype=np.float64)
    steady = _near_usual(heights, frames, HEIGHT_TOLERANCE) & _near_usual(areas, frames, AREA_TOLERANCE)
    rejections.update(UNSTEADY for _ in np.flatnonzero(~steady))
    return [b for b, ok in zip(bodies, steady, strict=True) if ok]


def _near_usual(sizes: NDArray[np.float64], frames: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Bool: whether a size is near the median of those around it, each carried on by the usual growth until then."""
    half, logs = WINDOW // 2, np.log(sizes)
    usual = np.empty(len(sizes))
    inner = slice(half, max(half, len(sizes) - half))
    if inner.start < inner.stop:
        values, times = (np.lib.stride_tricks.sliding_window_view(each, WINDOW) for each in (logs, frames))
        usual[inner] = _usual(values, times, frames[inner])
    for i in (*range(min(half, len(sizes))), *range(inner.stop, len(sizes))):
        at = slice(max(0, i - half), i + half + 1)
        usual[i] = _usual(logs[None, at], frames[None, at], frames[i : i + 1])[0]
    return np.asarray(np.abs(logs - usual) <= np.log(tolerance))


def _usual(values: NDArray[np.float64], times: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """The usual value at the times `[n]` from those around, `[n, k]` with their times."""
    growth = np.zeros(len(now))
    if values.shape[1] > GROWTH_SPAN:
        spans = times[:, GROWTH_SPAN:] - times[:, :-GROWTH_SPAN]
        growth = np.median((values[:, GROWTH_SPAN:] - values[:, :-GROWTH_SPAN]) / spans, axis=1)
    return np.asarray(np.median(values + growth[:, None] * (now[:, None] - times), axis=1))


def _cut_at_steps(bodies: list[Blob]) -> list[list[Blob]]:
    """The parts of a run between which the height changes at once for good."""
    logs = np.log([b.height for b in bodies])
    cuts = (np.flatnonzero(np.abs(np.diff(logs)) > np.log(STEP)) + 1).tolist()
    return [bodies[a:b] for a, b in pairwise([0, *cuts, len(bodies)])]


def _without_pieces(parts: list[list[Blob]], rejections: Rejections) -> list[list[Blob]]:
    """The parts of a run without those that show a piece of the body that is seen before or after."""
    heights = [float(np.median([b.height for b in part])) if part else 0.0 for part in parts]
    around = [max(before, after) for before, after in zip([0.0, *heights], [*heights[1:], 0.0], strict=False)]
    whole = [height * STEP >= highest for height, highest in zip(heights, around, strict=True)]
    rejections.update(NO_BODY for part, ok in zip(parts, whole, strict=True) if not ok for _ in part)
    return [part for part, ok in zip(parts, whole, strict=True) if ok]


def gapless(frames: Sequence[int]) -> list[slice]:
    """Cut increasing frame numbers into slices within which no more than MAX_GAP in a row are missing."""
    cuts = np.flatnonzero(np.diff(frames) > MAX_GAP + 1) + 1
    ends = [0, *cuts.tolist(), len(frames)]
    return [slice(a, b) for a, b in pairwise(ends) if a < b]
