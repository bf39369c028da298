"""The answers that never end: events for the page's text, and the pictures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from hstl_fast.recognition.server.changes import Changes
from hstl_fast.recognition.server.people import People
from hstl_fast.recognition.server.pictures import Pictures
from hstl_fast.recognition.server.state import LiveState

# A page is told of changes so often at most, and at least that something is alive.
_SHORTEST, _LONGEST = 0.2, 1.0
# The gallery is looked at so often while somebody has the page open, because other programs change it, too.
_GALLERY = 2.0
# Browsers wait so many milliseconds before they ask again.
_RETRY = 2000
_PICTURES_PER_SECOND = 15
BOUNDARY = "hstl-fast-picture"


def status_of(state: LiveState | None, people: People) -> dict[str, Any]:
    """Say all that the page shows besides people and sightings.

    Args:
        state: The live recognition, or None.
        people: The gallery.

    Returns:
        The status as JSON holds it.
    """
    live: dict[str, Any] = {"live": False} if state is None else state.status()
    return {**live, "gallery": people.state()}


async def events(state: LiveState | None, people: People, changes: Changes) -> AsyncIterator[bytes]:
    """Write server-sent events: `status` at every change, and `sightings` with those that are new to this client.

    Args:
        state: The live recognition, or None.
        people: The gallery.
        changes: What to wait for.

    Yields:
        The bytes of events; the last says `closed`.
    """
    yield f"retry: {_RETRY}\n\n".encode()
    known, told, looked = -1, 0, 0.0
    while not changes.closed:
        if time.monotonic() - looked > _GALLERY:
            looked = time.monotonic()
            # A gallery that does not answer must not hold up the rest.
            await asyncio.wait({asyncio.ensure_future(people.look())}, timeout=_SHORTEST)
        known = changes.count
        yield _event("status", status_of(state, people))
        if state is not None:
            told, new = state.sightings(told)
            if new:
                yield _event("sightings", new)
        await asyncio.sleep(_SHORTEST)
        await changes.after(known, _LONGEST)
    ended = None if state is None else state.status()["ended"]
    yield _event("closed", {"reason": ended})


async def pictures(newest: Pictures, changes: Changes) -> AsyncIterator[bytes]:
    """Write the newest picture again and again, as fast as the client takes it.

    Args:
        newest: Gives the pictures.
        changes: Says when to end.

    Yields:
        Parts of `multipart/x-mixed-replace`.
    """
    newest.viewers += 1
    try:
        number = 0
        yield f"--{BOUNDARY}\r\n".encode()
        while not changes.closed:
            began = time.monotonic()
            picture = await newest.after(number)
            if picture is not None:
                number = picture.number
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n"
                # Browsers show a picture when they see the boundary after it.
                yield head.encode() + picture.jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
            await asyncio.sleep(max(0.0, began + 1 / _PICTURES_PER_SECOND - time.monotonic()))
    finally:
        newest.viewers -= 1


def _event(kind: str, content: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(content, allow_nan=False)}\n\n".encode()
