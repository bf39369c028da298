"""The gallery as the page uses it: in threads of its own, so that the live picture goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hstl_fast.recognition.names import check_name, check_new_name
from hstl_fast.recognition.records import Clip, Person, Recording
from hstl_fast.recognition.server.changes import Changes

_T = TypeVar("_T")


class Tracks(Protocol):
    """Who gives the walk of a track: `Watcher`."""

    def clip(self, track: int) -> Clip | None:
        """Return the last walk of a track, or None where it is not known, or no longer."""


class Known(Protocol):
    """The methods of a `Gallery` that the page needs."""

    def state(self) -> str:
        """Return a text that is another one after every change."""

    def people(self) -> list[Person]:
        """List the people."""

    def enroll(
        self,
        name: str,
        clips: Iterable[Clip],
        *,
        add: bool = False,
        keep_silhouettes: bool = True,
        keep_days: int | None = None,
    ) -> list[Recording]:
        """Enrol walks of a person."""

    def remove(self, name: str) -> int:
        """Remove a person."""

    def remove_recording(self, id: int) -> None:
        """Remove a recording."""

    def rename(self, old: str, new: str) -> None:
        """Give a person another name."""


@dataclass(frozen=True)
class Keeping:
    """The parts of people who are enrolled on the page that a gallery keeps, as `Gallery.enroll` takes them.

    Attributes:
        silhouettes: Whether their silhouettes are kept.
        days: The days after which their recordings are deleted, or None.
    """

    silhouettes: bool = True
    days: int | None = None


class Refused(Exception):
    """A request that cannot be granted.

    Args:
        status: The status of the answer.
        sentence: Why, in one sentence.
        more: What the answer says besides.
    """

    def __init__(self, status: int, sentence: str, **more: Any) -> None:
        super().__init__(sentence)
        self.status, self.more = status, more


class People:
    """Lists and changes the people of a gallery.

    Args:
        gallery: The gallery; its owner closes it.
        tracks: Gives the walks to enrol; None where nobody is watched.
        changes: Raised where the gallery has changed, or can no longer be read, or again.
        keeping: What the gallery keeps of those who are enrolled; None for silhouettes without a last day.
    """

    def __init__(self, gallery: Known, tracks: Tracks | None, changes: Changes, keeping: Keeping | None = None) -> None:
        self._gallery, self._tracks, self._changes = gallery, tracks, changes
        self._keeping = keeping or Keeping()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="page-reads")
        # Changes are made one after another: that of the page that asked first wins, and the other is told.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="page-writes")
        self._looking: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        self._state: str | None = None
        self._error: str | None = None

    def state(self) -> dict[str, Any]:
        """Say which state of the gallery is known, and why it cannot be read, as JSON holds it."""
        with self._lock:
            return {"state": self._state, "error": self._error}

    async def look(self) -> None:
        """Find out whether the gallery has changed, and whether it can be read.

        Callers share one look, since a database that is away may keep it for seconds.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._run(self._readers, self._look))
        await asyncio.shield(self._looking)

    async def listed(self) -> list[dict[str, Any]]:
        """List the people, by name.

        Raises:
            Refused: The gallery cannot be read.
        """
        try:
            people = await self._run(self._readers, self._gallery.people)
        except (ValueError, OSError) as error:
            raise Refused(503, sentence(error)) from error
        return [_person(person) for person in sorted(people, key=lambda person: person.name.casefold())]

    async def enroll(self, track: int, name: str, add: bool) -> list[dict[str, Any]]:
        """Enrol the person of a track.

        Args:
            track: The number of the track.
            name: The name.
            add: Whether the walk is to be added where the gallery has this name already.

        Returns:
            The recordings that were made.

        Raises:
            Refused: Nobody is watched, the track is not known, or the name is taken.
        """
        recordings = await self._change(lambda: self._enroll(track, name, add))
        return [_recording(recording) for recording in recordings]

    async def remove(self, name: str) -> int:
        """Remove a person with all recordings, and return how many these were."""
        return await self._change(lambda: self._gallery.remove(name))

    async def remove_recording(self, recording: int) -> None:
        """Remove a recording, and with the last one of a person the person, too."""
        await self._change(lambda: self._gallery.remove_recording(recording))

    async def rename(self, old: str, new: str) -> None:
        """Give a person another name."""
        await self._change(lambda: self._gallery.rename(old, new))

    def close(self) -> None:
        """Wait for what is being read and written, and end the threads; what has not begun is not done."""
        for workers in (self._writer, self._readers):
            workers.shutdown(wait=True, cancel_futures=True)

    def _look(self) -> None:
        before = self.state()
        try:
            state, error = self._gallery.state(), None
        except Exception as failure:
            state, error = before["state"], sentence(failure)
        with self._lock:
            self._state, self._error = state, error
        if self.state() != before:
            self._changes.raise_()

    async def _change(self, change: Callable[[], _T]) -> _T:
        changed = await self._run(self._writer, change)
        # A look that is under way may have been too early.
        await self._run(self._readers, self._look)
        return changed

    async def _run(self, workers: ThreadPoolExecutor, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(workers, function)

    def _enroll(self, track: int, name: str, add: bool) -> list[Recording]:
        if self._tracks is None:
            raise Refused(409, "nobody is watched here; `hstl-fast enroll` and the page of `hstl-fast watch` enrol")
        name = check_name(name)
        if not any(person.name == name for person in self._gallery.people()):
            check_new_name(name)
        elif not add:
            raise Refused(
                409, f"the gallery knows {name!r} already; add this walk if it is the same person", taken=True
            )
        clip = self._tracks.clip(track)
        if clip is None:
            raise Refused(404, f"track {track} ended too long ago to be enrolled, or has no silhouettes yet")
        keeping = self._keeping
        return self._gallery.enroll(name, [clip], add=add, keep_silhouettes=keeping.silhouettes, keep_days=keeping.days)


def sentence(error: Exception) -> str:
    """Say an error in one line.

    Args:
        error: The error.

    Returns:
        Its message, or its kind where it has none.
    """
    return " ".join(str(error).split()) or type(error).__name__


def _person(person: Person) -> dict[str, Any]:
    return {"name": person.name, "recordings": person.recordings, "created": person.created.isoformat()}


def _recording(recording: Recording) -> dict[str, Any]:
    times = (recording.created, recording.keep_until)
    created, keep_until = (None if time is None else time.isoformat() for time in times)
    return {**vars(recording), "created": created, "keep_until": keep_until}
