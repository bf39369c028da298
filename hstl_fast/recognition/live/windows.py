"""Tracks of people and their silhouettes, from the bodies of the last frames: nothing grows with time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.cleaning import silhouette_of, untorn_frames
from hstl_fast.silhouettes.video.tracking import Passage, follow_people
from hstl_fast.silhouettes.video.walking import objection, one_head

Box = tuple[int, int, int, int]
Silhouette = NDArray[np.uint8]
# People are followed through at least so many frames at a time: enough for a tear to heal and for meetings to part.
MEMORY = 90
# A run of fewer bodies is no walk, and its outlines cannot be compared with those around.
SHORTEST_RUN = 5
# A track gets its number when it has so many usable silhouettes.
FIRST_FRAMES = 10
# A track ends when its person has not been seen apart from others for so many frames.
PATIENCE = 25
# A track keeps so many usable silhouettes.
KEPT = 150


class Place(NamedTuple):
    """The place where a person was seen last.

    Attributes:
        frame: Index of the frame.
        box: The bounding box (x, y, width, height).
    """

    frame: int
    box: Box


@dataclass(eq=False)
class Track:
    """A person who walks through the picture.

    Attributes:
        number: The number of the track.
        first: Index of the first frame in which he was seen.
        last: Where he was seen last.
        bodies: His boxes by frame, of the frames that are remembered.
        usable: His usable silhouettes by frame, of the frames that are remembered.
        earlier: Usable silhouettes of frames before those, with their frames.
        forgotten: Number of usable silhouettes of frames before those.
        embedded: The last frame of the last window that was given.
    """

    number: int
    first: int
    last: Place
    bodies: dict[int, Box] = field(default_factory=dict)
    usable: dict[int, Silhouette] = field(default_factory=dict)
    earlier: deque[tuple[int, Silhouette]] = field(default_factory=lambda: deque(maxlen=KEPT))
    forgotten: int = 0
    embedded: int = -1

    @property
    def frames(self) -> int:
        """Number of usable silhouettes so far."""
        return self.forgotten + len(self.usable)

    def recent(self) -> list[tuple[int, Silhouette]]:
        """Return the last usable silhouettes with their frames, KEPT at most."""
        return [*self.earlier, *sorted(self.usable.items())][-KEPT:]

    def forget_before(self, frame: int) -> None:
        """Forget where the person was before a frame; silhouettes are kept."""
        self.bodies = {at: box for at, box in self.bodies.items() if at >= frame}
        gone = sorted(at for at in self.usable if at < frame)
        self.earlier.extend((at, self.usable.pop(at)) for at in gone)
        self.forgotten += len(gone)


class Tracks:
    """The people in front of a camera: runs of bodies, as `track_people` finds them in the last frames, by number.

    A run belongs to the track with which it shares most bodies. Frames that turn out to be unusable, since two people
    who part were one body before, are taken back as long as they are remembered.

    Args:
        window: Silhouettes of a window.
        every: Frames between two calls of `update`.
        numbers: Gives numbers to tracks.
        camera_may_move: Whether where somebody is in the picture does not tell whether he walks.

    Attributes:
        memory: Number of frames that `update` needs.
        tracks: The tracks that have not ended, by number.
    """

    def __init__(self, window: int, every: int, numbers: Iterator[int], camera_may_move: bool) -> None:
        self.memory = max(MEMORY, window + 2 * every)
        self.tracks: dict[int, Track] = {}
        self._window, self._every, self._least = window, every, min(window, FIRST_FRAMES)
        self._numbers, self._camera_may_move = numbers, camera_may_move
        self._aligned: dict[tuple[int, Box, int], Silhouette] = {}

    def update(self, first: int, blobs: list[list[Blob]]) -> list[Track]:
        """Follow people through the last frames.

        Args:
            first: Index of the first frame.
            blobs: The bodies of each frame, with its index, `memory` frames or fewer.

        Returns:
            The tracks that have ended.
        """
        now = first + len(blobs) - 1
        self._aligned = {key: shape for key, shape in self._aligned.items() if key[0] >= first}
        for track in self.tracks.values():
            track.forget_before(first)
        passages = follow_people(blobs)
        owners = self._owners(passages)
        for i, passage in enumerate(passages):
            usable = self._usable(passage)
            owner = owners.get(i)
            if owner is None and now - passage.bodies[-1].frame <= PATIENCE:  # later it is that of a track that ended
                owner = self._new_track(passage, usable)
            if owner is not None:
                self._continue(owner, passage, usable)
        ended = [track for track in self.tracks.values() if now - track.last.frame > PATIENCE]
        for track in ended:
            del self.tracks[track.number]
        return ended

    def windows(self) -> Iterator[tuple[Track, Silhouette]]:
        """Yield the last window `[window, 64, 64]` of every track that has enough new silhouettes, and walks in it."""
        for track in self.tracks.values():
            frames = sorted(track.usable)[-self._window :]
            if len(frames) < self._window or frames[-1] - track.embedded < max(1, self._every // 2):
                continue
            window = np.stack([track.usable[frame] for frame in frames])
            if self._shows_a_walk([track.bodies[frame] for frame in frames], window):
                track.embedded = frames[-1]
                yield track, window

    def end(self) -> list[Track]:
        """End all tracks, and return them."""
        ended, self.tracks = list(self.tracks.values()), {}
        return ended

    def _owners(self, passages: list[Passage]) -> dict[int, Track]:
        """The track of each passage, by the passage's place; those that share most bodies go first."""
        shared = []
        for i, passage in enumerate(passages):
            for track in self.tracks.values():
                common = sum(track.bodies.get(body.frame) == body.box for body in passage.bodies)
                shared.append((-common, track.number, i)) if common else None
        owners: dict[int, Track] = {}
        taken: set[int] = set()
        for _, number, i in sorted(shared):
            if i not in owners and number not in taken:
                owners[i] = self.tracks[number]
                taken.add(number)
        return owners

    def _new_track(self, passage: Passage, usable: dict[int, Silhouette]) -> Track | None:
        if len(usable) < self._least:
            return None
        body = passage.bodies[0]
        track = Track(next(self._numbers), body.frame, Place(body.frame, body.box))
        self.tracks[track.number] = track
        return track

    def _continue(self, track: Track, passage: Passage, usable: dict[int, Silhouette]) -> None:
        track.bodies = {body.frame: body.box for body in passage.bodies}
        track.usable = usable
        last = passage.bodies[-1]
        track.last = Place(last.frame, last.box)

    def _usable(self, passage: Passage) -> dict[int, Silhouette]:
        """The usable silhouettes of a passage by frame; none if together they are no walk of one person."""
        bodies: list[Blob] = []
        shapes: list[Silhouette] = []
        for run in passage.runs:
            if len(run) >= SHORTEST_RUN:
                silhouettes = np.stack([self._silhouette(body) for body in run])
                whole = np.flatnonzero(untorn_frames(silhouettes) & one_head(silhouettes))
                bodies += [run[i] for i in whole]
                shapes += [silhouettes[i] for i in whole]
        if len(bodies) < self._least or not self._shows_a_walk([body.box for body in bodies], np.stack(shapes)):
            return {}
        return {body.frame: shape for body, shape in zip(bodies, shapes, strict=True)}

    def _shows_a_walk(self, boxes: list[Box], silhouettes: Silhouette) -> bool:
        return not objection(None if self._camera_may_move else np.array(boxes), silhouettes)

    def _silhouette(self, body: Blob) -> Silhouette:
        key = body.frame, body.box, body.area
        if key not in self._aligned:
            self._aligned[key] = silhouette_of(body)
        return self._aligned[key]
