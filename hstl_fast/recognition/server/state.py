"""A live recognition as the page knows it: the newest status, who is in view, and the last people seen."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.live.events import Seen, Sighting, Source, Update
from hstl_fast.recognition.server.changes import Changes
from hstl_fast.recognition.server.people import Tracks

# The page lists so many tracks; those that were told of longest ago are forgotten.
MOST_TRACKS = 200
# A portrait shows the box of a person and this share of its height around it.
_AROUND = 0.08


class LiveState:
    """Takes what a recognition gives, in its thread, and answers what the page's clients ask, in the server's.

    Args:
        source: The source, for its name and how often it was lost; None where it is not known.
        tracks: Gives silhouettes of tracks of which there is no picture.
        changes: Raised at every change.
    """

    def __init__(self, source: Source | None, tracks: Tracks, changes: Changes) -> None:
        self._source, self._tracks, self._changes = source, tracks, changes
        self._lock = threading.Lock()
        self._update: Update | None = None
        self._shown = time.monotonic()
        self._sightings: OrderedDict[int, tuple[int, Sighting]] = OrderedDict()
        # The portraits with the numbers that tell a page that there is another one.
        self._portraits: OrderedDict[int, tuple[int, NDArray[np.uint8]]] = OrderedDict()
        self._count = 0
        self._ended: str | None = None

    def show(self, update: Update) -> None:
        """Take what a frame brought.

        Args:
            update: What the recognition gave for the frame.
        """
        silhouettes = self._silhouettes(update)
        with self._lock:
            self._update, self._shown = update, time.monotonic()
            for sighting in update.sightings:
                self._count += 1
                self._sightings[sighting.track] = self._count, sighting
                self._sightings.move_to_end(sighting.track)
            told = {sighting.track for sighting in update.sightings}
            for seen in update.seen:
                if seen.track in told or seen.track not in self._portraits:
                    self._keep_portrait(update.frame.image, seen)
            for track, silhouette in silhouettes.items():
                self._portraits.setdefault(track, (1, silhouette))
            _forget(self._sightings)
            _forget(self._portraits)
        self._changes.raise_()

    def end(self, reason: str) -> None:
        """Say that no frame will come any more.

        Args:
            reason: A sentence for the page.
        """
        with self._lock:
            self._ended = reason
        self._changes.raise_()

    def status(self) -> dict[str, Any]:
        """Say how the recognition goes.

        Returns:
            The status as JSON holds it; `age` is the time since the last frame, in seconds.
        """
        with self._lock:
            update, ended, shown = self._update, self._ended, self._shown
        source = self._source
        status: dict[str, Any] = {
            "live": True,
            "source": None if source is None else source.name,
            "reconnections": 0 if source is None else source.reconnections,
            "dropped": 0 if source is None else source.dropped,
            "age": round(time.monotonic() - shown, 2),
            "ended": ended,
            "frame": None,
            "fps": None,
            "delay": None,
            "seen": [],
        }
        if update is not None:
            status |= {"frame": update.frame.number, "fps": round(update.fps, 2), "delay": round(update.delay, 3)}
            seen = [] if ended else [{**_seen(one), **self._portrait_of(one.track)} for one in update.seen]
            status |= {"dropped": update.dropped, "seen": seen}
        return status

    def sightings(self, after: int = 0) -> tuple[int, list[dict[str, Any]]]:
        """List the tracks of which something became known, the last told of last.

        Args:
            after: The number of the last that the caller knows; 0 for none.

        Returns:
            The number to ask with next, and the sightings as JSON holds them.
        """
        with self._lock:
            new = [sighting for number, sighting in self._sightings.values() if number > after]
            return self._count, [{**one.as_json(), **self._portrait_of(one.track)} for one in new]

    def take_back_names(self, known: set[str]) -> None:
        """Take back the names of people whom the gallery no longer has.

        Args:
            known: The names that it has.
        """
        with self._lock:
            gone = [one for _, one in self._sightings.values() if one.name is not None and one.name not in known]
            for sighting in gone:
                self._count += 1
                self._sightings[sighting.track] = self._count, replace(sighting, name=None)
        if gone:
            self._changes.raise_()

    def portrait(self, track: int) -> NDArray[np.uint8] | None:
        """Return a picture of a person in a track.

        Args:
            track: The number of the track.

        Returns:
            BGR `[H, W, 3]` uint8, or None where the track is not known, or no longer.
        """
        with self._lock:
            found = self._portraits.get(track)
        return None if found is None else found[1]

    def _portrait_of(self, track: int) -> dict[str, Any]:
        found = self._portraits.get(track)
        return {"portrait": None if found is None else found[0]}

    def _silhouettes(self, update: Update) -> dict[int, NDArray[np.uint8]]:
        """A silhouette of everybody who is told of only after he has gone from the picture."""
        pictured = {seen.track for seen in update.seen} | set(self._portraits)
        late = [sighting.track for sighting in update.sightings if sighting.track not in pictured]
        clips = {track: clip for track in late if (clip := self._tracks.clip(track)) is not None}
        return {track: _drawn(clip.silhouettes) for track, clip in clips.items() if len(clip.silhouettes)}

    def _keep_portrait(self, image: NDArray[np.uint8], seen: Seen) -> None:
        x, y, width, height = seen.box
        more = round(height * _AROUND)
        rows = slice(max(0, y - more), max(0, y + height + more))
        columns = slice(max(0, x - more), max(0, x + width + more))
        part = image[rows, columns]
        if part.size:
            before = self._portraits.get(seen.track)
            self._portraits[seen.track] = 1 if before is None else before[0] + 1, part.copy()
            self._portraits.move_to_end(seen.track)


def _forget(tracks: OrderedDict[int, Any]) -> None:
    while len(tracks) > MOST_TRACKS:
        tracks.popitem(last=False)


def _drawn(silhouettes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle silhouette `[64, 64]` as a picture BGR `[64, 40, 3]`."""
    silhouette = silhouettes[len(silhouettes) // 2][:, 12:52]
    return np.ascontiguousarray(np.repeat(silhouette[:, :, None], 3, axis=2))


def _seen(seen: Seen) -> dict[str, Any]:
    answer = seen.answer
    nearest = answer.matches[0] if answer is not None and answer.matches else None
    return {
        "track": seen.track,
        "frames": seen.frames,
        "answered": answer is not None,
        "name": None if answer is None else answer.name,
        "nearest": None if nearest is None else nearest.person,
        "distance": None if nearest is None else round(nearest.distance, 4),
        "threshold": None if answer is None or answer.threshold is None else round(answer.threshold, 4),
    }
