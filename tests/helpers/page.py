"""A gallery and a recognition that only pretend, and requests to the page that shows them."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np

from hstl_fast.recognition import Answer, Clip, Match, Person, Recording
from hstl_fast.recognition.live.events import Frame, Seen, Sighting, Update
from hstl_fast.recognition.names import check_name
from hstl_fast.recognition.server.address import Address

BEGINNING = datetime(2026, 12, 1, 9, 30, tzinfo=timezone.utc)


class PretendedGallery:
    """Keeps names in memory; `failure` is raised by every call while it is set. The last recording is number 1."""

    def __init__(self, *names: str) -> None:
        self.failure: Exception | None = None
        self.changes = 0
        self.last: str | None = None
        self.held: dict[str, list[Clip]] = {name: [clip(1)] for name in names}

    def state(self) -> str:
        self._try()
        return str(self.changes)

    def people(self) -> list[Person]:
        self._try()
        return [Person(name, len(clips), BEGINNING) for name, clips in self.held.items()]

    def enroll(
        self,
        name: str,
        clips: Iterable[Clip],
        *,
        add: bool = False,
        keep_silhouettes: bool = True,
        keep_days: int | None = None,
    ) -> list[Recording]:
        self._try()
        self.kept = keep_silhouettes, keep_days
        name, clips = check_name(name), list(clips)
        if any(len(one.silhouettes) < 5 for one in clips):
            raise ValueError(f"a walk needs 5 frames, got {len(clips[0].silhouettes)}")
        if name in self.held and not add:
            raise ValueError(f"the name {name!r} is taken")
        self.held.setdefault(name, []).extend(clips)
        self.changes += 1
        self.last = name
        return [recording(name, one) for one in clips]

    def remove(self, name: str) -> int:
        self._find(name)
        self.changes += 1
        return len(self.held.pop(name))

    def remove_recording(self, id: int) -> None:
        self._try()
        if id != 1 or self.last is None:
            raise ValueError(f"there is no recording {id}")
        self.held[self.last].pop()
        if not self.held[self.last]:
            del self.held[self.last]
        self.changes, self.last = self.changes + 1, None

    def rename(self, old: str, new: str) -> None:
        self._find(old)
        if new in self.held:
            raise ValueError(f"the name {new!r} is taken")
        self.held[new] = self.held.pop(old)
        self.changes += 1

    def _find(self, name: str) -> None:
        self._try()
        check_name(name)
        if name not in self.held:
            raise ValueError(f"nobody is called {name!r}")

    def _try(self) -> None:
        if self.failure is not None:
            raise self.failure


class PretendedWatcher:
    """Tracks 1 and 4 have walks, track 2 has too few frames, and the others are over."""

    def clip(self, track: int) -> Clip | None:
        return {1: clip(30), 2: clip(3), 4: clip(9)}.get(track)


class PretendedSource:
    """A source that is never read."""

    name, is_live, fps, dropped, reconnections = "door.mp4", True, 25.0, 3, 2

    def __iter__(self) -> Iterator[Frame]:
        return iter(())

    def close(self) -> None:
        pass


def clip(frames: int) -> Clip:
    return Clip("door.mp4", np.zeros((frames, 64, 64), np.uint8), 25.0)


def recording(person: str, walk: Clip) -> Recording:
    return Recording(1, person, walk.source, len(walk.silhouettes), walk.fps, BEGINNING, None, True)


def picture(number: int) -> Any:
    """A street at dusk, whose brightness tells its number, with a person at some place."""
    image = np.full((240, 320, 3), (90 + number % 100, 70, 60), np.uint8)
    image[160:] = (70, 80, 84)
    x = 20 + (7 * number) % 220
    image[70:200, x : x + 40] = (60, 150, 220)
    return image


def answer(name: str | None, nearest: str = "Ann") -> Answer:
    match = Match(name or nearest, 1, "door.mp4", 6.25 if name else 11.5)
    return Answer("door.mp4", name, (match,), 8.0, 0.01, 1.5, np.zeros(73, np.float32))


def update(number: int, names: dict[int, str | None], early: Iterable[int] = (), ended: Iterable[int] = ()) -> Update:
    """What frame `number` brings: tracks that are named now, tracks without an answer, and tracks that have ended."""
    frame = Frame(number, number / 25, time.monotonic(), picture(number))
    x = 20 + (7 * number) % 220
    seen = [Seen(track, (x, 70, 40, 130), 30 + number, answer(name)) for track, name in names.items()]
    seen += [Seen(track, (x, 70, 40, 130), 4, None) for track in early]
    told = [(track, name, False) for track, name in names.items()] + [(track, None, True) for track in ended]
    sightings = [
        Sighting(track, name, 6.25 if name else 11.5, 1.5, BEGINNING, BEGINNING, 30, over) for track, name, over in told
    ]
    return Update(frame, tuple(seen), tuple(sightings), 24.6, 0.085, 3)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connection(address: Address) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", address.port, timeout=20)


def ask(address: Address, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """Send a request with these headers (`_` stands for `-`), and read the whole answer."""
    sender = connection(address)
    try:
        sender.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answered = sender.getresponse()
        return Reply(answered.status, {k.lower(): v for k, v in answered.getheaders()}, answered.read())
    finally:
        sender.close()


def change(address: Address, path: str, content: Any, **headers: str) -> Reply:
    """Ask for a change, as the page itself does."""
    own = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{address.port}"}
    return ask(address, path, "POST", json.dumps(content).encode(), **{**own, **headers})


class Events:
    """Reads server-sent events."""

    def __init__(self, address: Address, **headers: str) -> None:
        self._sender = connection(address)
        self._sender.request("GET", "/api/events", headers=headers)
        self.answered = self._sender.getresponse()

    def next(self) -> tuple[str, Any] | None:
        """The next event and its content; None at the end."""
        kind = ""
        for line in iter(self.answered.readline, b""):
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                return kind, json.loads(line[6:])
        return None

    def until(self, wanted: str, condition: Any = bool) -> Any:
        """The content of the next event of a kind that fulfils a condition."""
        while (event := self.next()) is not None:
            if event[0] == wanted and condition(event[1]):
                return event[1]
        raise AssertionError(f"no event {wanted} came")

    def close(self) -> None:
        self._sender.close()
        self.answered.close()


def read_picture(answered: http.client.HTTPResponse) -> bytes:
    """The next JPEG of the live picture."""
    length = None
    while line := answered.readline():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        elif line == b"\r\n" and length is not None:
            return answered.read(length)
    raise AssertionError("no picture came")
