"""The addresses of the page and what they answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hstl_fast.recognition.server.assets import ASSETS, INDEX
from hstl_fast.recognition.server.changes import Changes
from hstl_fast.recognition.server.guard import UNEXPECTED
from hstl_fast.recognition.server.people import People, Refused, sentence
from hstl_fast.recognition.server.pictures import Pictures, compress
from hstl_fast.recognition.server.state import LiveState
from hstl_fast.recognition.server.streams import BOUNDARY, events, pictures, status_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    _Endpoint = Callable[[Request], Awaitable[Response]]

# The body of a request has a name or two and a number.
_LONGEST_BODY = 16 * 1024
_SECONDS_FOR_BODY = 10.0
_WIDEST_PORTRAIT = 160
# Digits of the number of a track.
_LONGEST_NUMBER = 19


class Routes:
    """Answers requests that the guard let through.

    Args:
        people: The gallery.
        changes: What has changed since.
        state: The live recognition; None where only the gallery is served.
        newest: The live pictures; None likewise.
    """

    def __init__(self, people: People, changes: Changes, state: LiveState | None, newest: Pictures | None) -> None:
        self._people, self._changes, self._state, self._newest = people, changes, state, newest

    def application(self) -> Starlette:
        """Make the application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        def route(path: str, endpoint: _Endpoint, method: str = "GET") -> Route:
            made = Route(path, self._answered(endpoint), methods=[method])
            # Starlette adds HEAD, for which an endless answer would be written to nobody.
            made.methods = {method}
            return made

        routes = [
            route("/", self._index),
            route("/static/{name}", self._asset),
            route("/api/status", self._status),
            route("/api/people", self._list_people),
            route("/api/people/remove", self._remove, "POST"),
            route("/api/people/rename", self._rename, "POST"),
            route("/api/recordings/remove", self._remove_recording, "POST"),
            route("/api/enroll", self._enroll, "POST"),
            route("/api/sightings", self._sightings),
            route("/api/events", self._events),
            route("/api/portraits/{track}.jpeg", self._portrait),
            route("/live.mjpeg", self._pictures),
        ]
        return Starlette(routes=routes, exception_handlers={404: _unknown, 405: _unknown, 500: _unexpected})

    def _answered(self, endpoint: _Endpoint) -> _Endpoint:
        """Turn what an endpoint raises into an answer: a refusal, or a sentence of the gallery."""

        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Refused as refused:
                return _json({"error": sentence(refused), **refused.more}, refused.status)
            except (ValueError, OSError, ImportError) as error:
                # A gallery raises the same error for what was asked and for a database that is away. Asking it once
                # more would keep the answer for the seconds in which a database that is away is tried again.
                away = self._people.state()["error"] is not None or not isinstance(error, ValueError)
                return _json({"error": sentence(error)}, 503 if away else 400)

        return answer

    async def _index(self, request: Request) -> Response:
        return _asset(INDEX)

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS or name.endswith(".html"):
            raise Refused(404, "there is nothing at this address")
        return _asset(name)

    async def _status(self, request: Request) -> Response:
        await self._people.look()
        return _json(status_of(self._state, self._people))

    async def _list_people(self, request: Request) -> Response:
        people = await self._people.listed()
        if self._state is not None:
            self._state.take_back_names({person["name"] for person in people})
        return _json({"people": people})

    async def _remove(self, request: Request) -> Response:
        name = _name(await _body(request), "name")
        return _json({"removed": await self._people.remove(name)})

    async def _remove_recording(self, request: Request) -> Response:
        recording = _number(await _body(request), "recording")
        await self._people.remove_recording(recording)
        return _json({"removed": 1})

    async def _rename(self, request: Request) -> Response:
        body = await _body(request)
        old, new = _name(body, "old"), _name(body, "new")
        await self._people.rename(old, new)
        return _json({"name": new})

    async def _enroll(self, request: Request) -> Response:
        body = await _body(request)
        name, track, add = _name(body, "name"), _number(body, "track"), body.get("add", False)
        if not isinstance(add, bool):
            raise Refused(400, "expected true or false as add")
        return _json({"recordings": await self._people.enroll(track, name, add)})

    async def _sightings(self, request: Request) -> Response:
        return _json({"sightings": [] if self._state is None else self._state.sightings()[1]})

    async def _events(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        return StreamingResponse(events(self._state, self._people, self._changes), media_type="text/event-stream")

    async def _portrait(self, request: Request) -> Response:
        from starlette.responses import Response

        track = request.path_params["track"]
        is_number = track.isdecimal() and len(track) < _LONGEST_NUMBER
        image = self._state.portrait(int(track)) if self._state is not None and is_number else None
        if image is None:
            raise Refused(404, "there is no picture of this track, or no longer")
        jpeg = await asyncio.to_thread(compress, image, _WIDEST_PORTRAIT)
        return Response(jpeg, media_type="image/jpeg")

    async def _pictures(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        if self._newest is None:
            raise Refused(404, "only the gallery is served here, no live picture")
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return StreamingResponse(pictures(self._newest, self._changes), media_type=kind)


async def _unknown(request: Request, error: Exception) -> Response:
    return _json({"error": "there is nothing at this address"}, getattr(error, "status_code", 404))


async def _unexpected(request: Request, error: Exception) -> Response:
    # The error is raised on, to the guard, which logs it.
    return _json({"error": UNEXPECTED}, 500)


async def _body(request: Request) -> dict[str, Any]:
    """Read a JSON object; not more than a bounded number of bytes, and not longer than a bounded time."""
    try:
        content = await asyncio.wait_for(_bytes(request), _SECONDS_FOR_BODY)
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {_SECONDS_FOR_BODY:g} seconds") from None
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "expected a JSON object")
    return body


async def _bytes(request: Request) -> bytes:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _LONGEST_BODY:
            raise Refused(413, f"expected a request of {_LONGEST_BODY} bytes at most")
    return content


def _name(body: dict[str, Any], key: str) -> str:
    name = body.get(key)
    if not isinstance(name, str):
        raise Refused(400, f"expected a name as {key}")
    return name


def _number(body: dict[str, Any], key: str) -> int:
    number = body.get(key)
    # Databases have no longer numbers.
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 2**63:
        raise Refused(400, f"expected a whole number as {key}")
    return number


def _json(content: Any, status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status)


def _asset(name: str) -> Response:
    from starlette.responses import Response

    kind, content = ASSETS[name]
    return Response(content, media_type=kind)
