"""Silhouettes of live recognition against those that are cut out of whole footage.

    python -m benchmarks.recognition.live_quality [VIDEO...] [--every N] [--no-scenes]

Live, the background is learnt from what was seen so far, and people are followed through the last frames only. On
videos the share of the silhouettes that `hstl_fast.silhouettes.extract` cuts out and live recognition has, too, is
counted, and the intersection over union of both; on rendered streets both are compared with the true silhouettes.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core.markdown import table
from hstl_fast.recognition.live.events import Source
from hstl_fast.recognition.live.people import People
from hstl_fast.recognition.live.sources import open_source
from hstl_fast.recognition.live.windows import Box, Tracks
from hstl_fast.silhouettes import SilhouetteError, Track, extract
from hstl_fast.silhouettes.video.blobs import Blob
from tests.silhouettes.video.scenes import Scene, approaching, drifting, switched, walker, write
from tests.silhouettes.video.scoring import Score, box_iou, score

MIN_HEIGHT, WINDOW = 48, 30
# Nobody is in the rendered streets in the first frames, of which the background is learnt.
EMPTY = 60
# Boxes that overlap by this much show the same body.
SAME = 0.5


class Seen(NamedTuple):
    """A silhouette of a track.

    Attributes:
        box: Its box.
        silhouette: `[64, 64]` uint8.
    """

    box: Box
    silhouette: NDArray[np.uint8]


def watch(source: Source, every: int) -> dict[int, dict[int, Seen]]:
    """Follow the people of a source as live recognition does.

    Args:
        source: The source.
        every: Frames between two passes.

    Returns:
        The usable silhouettes of every track by frame, as they stood when their frame was forgotten.
    """
    people = People("background", MIN_HEIGHT, source.name, waits=True)
    tracks = Tracks(WINDOW, every, itertools.count(1), camera_may_move=False)
    taken: deque[list[Blob]] = deque(maxlen=tracks.memory)
    found: dict[int, dict[int, Seen]] = {}
    last = -1
    for frame in source:
        last = frame.number
        taken.append(people.see(frame, last).blobs)
        if (last + 1) % every == 0:
            _pass(tracks, last, list(taken), found)
    _pass(tracks, last, list(taken), found)
    people.close()
    return found


def _pass(tracks: Tracks, last: int, blobs: list[list[Blob]], found: dict[int, dict[int, Seen]]) -> None:
    first = last + 1 - len(blobs)
    ended = tracks.update(first, blobs)
    for track in (*tracks.tracks.values(), *ended):
        earlier = {frame: seen for frame, seen in found.get(track.number, {}).items() if frame < first}
        now = {frame: Seen(track.bodies[frame], shape) for frame, shape in track.usable.items()}
        found[track.number] = {**earlier, **now}


def compare(offline: list[Track], live: dict[int, dict[int, Seen]]) -> list[str]:
    """Compare live silhouettes with those of `extract`.

    Args:
        offline: The tracks of `extract`.
        live: The tracks of `watch`.

    Returns:
        Silhouettes offline, live, the share of the former that live has, too, and their mean intersection over union;
        tracks offline, and those of which live has 30 frames or more.
    """
    by_frame: dict[int, list[Seen]] = {}
    for track in live.values():
        for frame, seen in track.items():
            by_frame.setdefault(frame, []).append(seen)
    ious, long_enough = [], 0
    for each in offline:
        before = len(ious)
        for frame, box, silhouette in zip(each.frames.tolist(), each.boxes.tolist(), each.silhouettes, strict=True):
            nearest = max(by_frame.get(frame, []), key=lambda seen: box_iou(box, seen.box), default=None)
            if nearest is not None and box_iou(box, nearest.box) >= SAME:
                a, b = silhouette >= 128, nearest.silhouette >= 128
                ious.append(float((a & b).sum() / (a | b).sum()))
        long_enough += len(ious) - before >= WINDOW
    total = sum(len(each.frames) for each in offline)
    alive = sum(map(len, live.values()))
    shares = [str(total), str(alive), f"{100 * len(ious) / total:.1f} %", f"{np.mean(ious):.3f}"]
    return [*shares, str(len(offline)), str(long_enough)]


def streets() -> dict[str, Scene]:
    """Rendered streets by what is special about them."""
    late, one = EMPTY, walker(10, 200, 100, identity=3, first=EMPTY)
    crossing = [one, walker(310, 225, 100, identity=8, direction=-1, first=late)]
    standing = walker(10, 200, 100, identity=3, first=late, pauses=((late + 50, 75),))
    several = walker(10, 200, 100, identity=3, first=late), walker(-30, 110, 80, identity=8, first=late)
    return {
        "one person": Scene([one], 180),
        "two people apart": Scene(several, 200),
        "two people who cross": Scene(crossing, 180),
        "stands for three seconds": Scene([standing], 260),
        "towards the camera": Scene([approaching(160, 120, 60, identity=3, first=late)], 130),
        "the camera trembles": Scene([one], 180, tremble=2.0),
        "the picture brightens": Scene([one], 180, light=drifting(80, 140)),
        "a light is switched on": Scene([one], 180, light=switched(100)),
        "grey": Scene([one], 180, grey=True),
    }


def rendered(scene: Scene, every: int) -> list[str]:
    """Compare offline and live silhouettes of a rendered street with the true ones.

    Args:
        scene: The street.
        every: Frames between two passes.

    Returns:
        Frames in which people are whole, and for offline and live the frames found, their mean intersection over union
        with the true silhouettes, and silhouettes that show nobody.
    """
    with tempfile.TemporaryDirectory() as folder:
        video = write(Path(folder) / "street.avi", scene)
        try:
            offline = [(track.frames, track.boxes, track.silhouettes) for track in extract(video)]
        except SilhouetteError:
            offline = []
        live = [
            (np.array(list(track)), np.array([s.box for s in track.values()]), np.stack([s[1] for s in track.values()]))
            for track in watch(open_source(str(video)), every).values()
            if track
        ]
    scores = score(scene, offline), score(scene, live)
    return [str(sum(found.whole for found in scores[0].figures)), *_found(scores[0]), *_found(scores[1])]


def _found(got: Score) -> list[str]:
    frames = sum(found.frames for found in got.figures)
    ious = [found.iou * found.frames for found in got.figures if found.frames]
    return [str(frames), f"{sum(ious) / frames:.3f}" if frames else "-", str(got.strangers)]


def main() -> None:
    """Print the comparisons as tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", metavar="VIDEO")
    parser.add_argument("--every", type=int, default=15, help="frames between two passes (15)")
    parser.add_argument("--no-scenes", action="store_true", help="leave out the rendered streets")
    arguments = parser.parse_args()
    if arguments.videos:
        rows = []
        for video in arguments.videos:
            live = watch(open_source(video), arguments.every)
            rows.append([Path(video).name, *compare(extract(video), live)])
        print(
            *table(["video", "offline", "live", "found live", "IoU", "tracks", "of 30 frames live"], rows), "", sep="\n"
        )
    if not arguments.no_scenes:
        rows = [[name, *rendered(scene, arguments.every)] for name, scene in streets().items()]
        both = ["offline", "IoU", "nobody", "live", "IoU", "nobody"]
        print(*table(["street", "whole", *both], rows), sep="\n")


if __name__ == "__main__":
    main()
