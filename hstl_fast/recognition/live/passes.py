"""Passes over the last frames: tracks, windows and names, computed beside the frames that go on."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from hstl_fast.recognition.live.naming import Naming
from hstl_fast.recognition.live.windows import Place, Track, Tracks
from hstl_fast.recognition.records import Answer, Clip
from hstl_fast.silhouettes.video.blobs import Blob

# Clips of so many tracks that have ended can still be had, so that somebody is enrolled who has just walked by.
ENDED_CLIPS = 16


class Stretch(NamedTuple):
    """The last frames, as a pass takes them.

    Attributes:
        first: Index of the first frame.
        blobs: The bodies of each frame.
        fps: Frames a second, or None.
    """

    first: int
    blobs: list[list[Blob]]
    fps: float | None


class Standing(NamedTuple):
    """A track as a pass leaves it.

    Attributes:
        first: Index of the first frame in which the person was seen.
        last: Where he was seen last.
        frames: His usable silhouettes so far.
        answer: The answer that stands, or None.
    """

    first: int
    last: Place
    frames: int
    answer: Answer | None


class Outcome(NamedTuple):
    """The result of a pass.

    Attributes:
        last: Index of the last frame.
        standings: The tracks that go on, by number.
        ended: The tracks that have ended, by number.
    """

    last: int
    standings: dict[int, Standing]
    ended: dict[int, Standing]


class Passes:
    """Follows and names people; one pass at a time, in any thread.

    Args:
        source: The name of the source.
        tracks: Follows people.
        naming: Gives names to tracks.

    Attributes:
        memory: Number of frames that a pass needs.
    """

    def __init__(self, source: str, tracks: Tracks, naming: Naming) -> None:
        self._source, self._tracks, self._naming = source, tracks, naming
        self.memory = self._tracks.memory
        self._clips: dict[int, Clip] = {}
        self._lock = threading.Lock()

    def run(self, stretch: Stretch) -> Outcome:
        """Follow people through the last frames, and name those who have new windows."""
        ended = self._tracks.update(stretch.first, stretch.blobs)
        windows = {track.number: window for track, window in self._tracks.windows()}
        answers = self._naming.hear(windows, self._source, stretch.fps)
        self._keep_clips(stretch.fps, [*self._tracks.tracks.values(), *ended])
        gone = {track.number: _standing(track, answers) for track in ended}
        for number in gone:
            self._naming.forget(number)
        last = stretch.first + len(stretch.blobs) - 1
        return Outcome(last, {t.number: _standing(t, answers) for t in self._tracks.tracks.values()}, gone)

    def end(self, last: Outcome) -> Outcome:
        """End all tracks that go on."""
        for track in self._tracks.end():
            self._naming.forget(track.number)
        return Outcome(last.last, {}, last.standings)

    def clip(self, track: int) -> Clip | None:
        """Return the last usable silhouettes of a track, or None where there are none. From any thread."""
        with self._lock:
            return self._clips.get(track)

    @property
    def held(self) -> int:
        """Number of silhouettes that are held for tracks and clips."""
        with self._lock:
            clips = sum(len(clip.silhouettes) for clip in self._clips.values())
        return clips + sum(len(track.recent()) for track in self._tracks.tracks.values())

    def _keep_clips(self, fps: float | None, tracks: list[Track]) -> None:
        clips = {}
        for track in tracks:
            recent = [silhouette for _, silhouette in track.recent()]
            if recent:
                clips[track.number] = Clip(f"{self._source}-track{track.number}", np.stack(recent), fps)
        with self._lock:
            ended = [number for number in sorted(self._clips) if number not in self._tracks.tracks]
            kept = {number: self._clips[number] for number in ended[-ENDED_CLIPS:]}
            self._clips = {**kept, **clips}


def _standing(track: Track, answers: dict[int, Answer]) -> Standing:
    return Standing(track.first, track.last, track.frames, answers.get(track.number))
