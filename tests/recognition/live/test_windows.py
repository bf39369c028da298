"""Tracks from the bodies of the last frames: their numbers, their windows, and that nothing grows with time."""

import itertools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")

from hstl_fast.recognition.live import passes as passes_module
from hstl_fast.recognition.live.events import Frame
from hstl_fast.recognition.live.passes import Passes
from hstl_fast.recognition.live.people import People, Sight
from hstl_fast.recognition.live.watch import Watch
from hstl_fast.recognition.live.windows import KEPT, Tracks
from hstl_fast.silhouettes.video.blobs import Blob, find_blobs
from hstl_fast.silhouettes.walkers import render
from tests.recognition.live.test_naming import Known, naming
from tests.recognition.live.watching import Played

SHAPES = render(3, frames=50)
ROWS, COLUMNS = 80, 160


def bodies(frame: int, left: float | None) -> list[Blob]:
    """The blobs of a frame in which somebody is at a column, or nobody."""
    mask = np.zeros((ROWS, COLUMNS + 64), bool)
    if left is not None:
        at = round(left)
        mask[8:72, at : at + 64] = SHAPES[frame % len(SHAPES)] >= 128
    return find_blobs(mask, frame, 48)


def walk(frame: int) -> float | None:
    """Somebody crosses the picture in 60 frames, and comes again after another 40."""
    step = frame % 100
    return 2.0 + 2.5 * step if step < 60 else None


class Camera:
    """Tracks that see frame after frame, and what became of them."""

    def __init__(self, window: int = 15, every: int = 5) -> None:
        self.tracks = Tracks(window, every, itertools.count(1), camera_may_move=False)
        self.ended: list[int] = []
        self.windows: dict[int, list[NDArray[np.uint8]]] = {}
        self._blobs: list[list[Blob]] = []
        self._every = every

    def see(self, blobs: list[Blob]) -> None:
        self._blobs.append(blobs)
        if len(self._blobs) % self._every == 0:
            first = max(0, len(self._blobs) - self.tracks.memory)
            self.ended += [track.number for track in self.tracks.update(first, self._blobs[first:])]
            for track, window in self.tracks.windows():
                self.windows.setdefault(track.number, []).append(window)


@pytest.mark.slow
def test_somebody_who_comes_again_is_another_track() -> None:
    camera = Camera()
    for frame in range(200):
        camera.see(bodies(frame, walk(frame)))
    assert camera.ended == [1, 2]
    assert not camera.tracks.tracks
    assert list(camera.windows) == [1, 2]


def test_windows_are_the_last_silhouettes_every_few_frames() -> None:
    camera = Camera(window=15, every=5)
    for frame in range(60):
        camera.see(bodies(frame, walk(frame)))
    (track,) = camera.tracks.tracks.values()
    assert track.frames == 60
    windows = camera.windows[1]
    assert len(windows) == 10
    assert np.array_equal(windows[-1], np.stack([track.usable[frame] for frame in range(45, 60)]))
    assert np.array_equal(windows[-1][:10], windows[-2][5:])


def test_somebody_who_stands_has_no_new_windows_and_stays_a_track() -> None:
    camera = Camera(window=15, every=5)
    for frame in range(150):
        still = min(frame, 50)
        camera.see([Blob(frame, b.box, b.area, False, True, b.packed) for b in bodies(still, walk(still))])
    (track,) = camera.tracks.tracks.values()
    assert track.number == 1
    assert len(camera.windows[1]) <= 11
    assert not camera.ended


def test_short_passages_are_no_tracks() -> None:
    camera = Camera()
    for frame in range(100):
        camera.see(bodies(frame, walk(frame)) if frame < 8 else [])
    assert not camera.tracks.tracks
    assert not camera.ended


@pytest.mark.slow
def test_two_people_who_touch_lose_the_frames_in_which_they_were_one() -> None:
    camera = Camera(window=15, every=5)
    for frame in range(70):
        mask = np.zeros((ROWS, 400), bool)
        for left in (2.0 + 2.5 * frame, 330 - 2.5 * frame):
            at = round(left)
            mask[8:72, at : at + 64] |= SHAPES[frame % len(SHAPES)] >= 128
        camera.see(find_blobs(mask, frame, 48))
    usable = {track.number: sorted(track.usable) for track in camera.tracks.tracks.values()}
    for frame in range(63, 70):  # the bodies overlap
        assert not any(frame in frames for frames in usable.values())
    assert all(len(frames) > 40 for frames in usable.values())
    assert len(usable) == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve people walk by, one after another."""
    monkeypatch.setattr(passes_module, "ENDED_CLIPS", 4)
    tracks = Tracks(30, 30, itertools.count(1), camera_may_move=False)
    names = naming(cast(Any, Known()))
    passes = Passes("door", tracks, names)
    source = Played([], is_live=False)
    known = [bodies(frame, walk(frame)) for frame in range(100)]

    def see(_: Frame, index: int) -> Sight:
        return Sight([Blob(index, b.box, b.area, False, True, b.packed) for b in known[index % 100]], None)

    people = SimpleNamespace(
        see=see, box=lambda box, motion: box, has_other_size=lambda frame: False, close=lambda: None
    )
    watch = Watch(source, cast(People, people), passes, 30)
    image = np.zeros((4, 4, 3), np.uint8)
    ended, held = [], []
    for number in range(1200):
        update = watch.update(Frame(number, number / 25, 0.0, image))
        ended += [sighting.track for sighting in update.sightings if sighting.ended]
        held.append(passes.held)
    assert ended == list(range(1, 13))
    assert max(held) <= 60 * 4 + 2 * KEPT
    assert max(held[600:900]) == max(held[900:])
    assert len(watch._taken) == passes.memory == 90
    assert (len(tracks.tracks), len(names._names)) == (0, 0)
    assert not watch._sightings._firsts
    assert not watch._sightings._names
    assert len(tracks._aligned) <= passes.memory


@pytest.mark.slow
def test_a_long_track_keeps_its_last_silhouettes() -> None:
    camera = Camera(window=15, every=15)
    for frame in range(300):
        step = frame % 120
        camera.see(bodies(frame, 2.0 + 2.5 * min(step, 120 - step) * 0.5))
    (track,) = camera.tracks.tracks.values()
    assert track.frames >= 280
    assert len(track.recent()) == KEPT
    assert track.recent()[-1][0] == 299
    assert len(track.bodies) <= camera.tracks.memory
