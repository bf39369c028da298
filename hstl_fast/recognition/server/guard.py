"""A check before every route: the request's host, its token, where it was sent from, and what browsers may do."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from hstl_fast.recognition.server.address import Address
from hstl_fast.recognition.server.assets import ASSETS, PUBLIC, TOKEN_PAGE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
UNEXPECTED = "an unexpected error; the terminal shows it"
_READING = ("GET", "HEAD")
_log = logging.getLogger(__name__)


class _Refusal(NamedTuple):
    status: int
    sentence: str


class Guard:
    """Passes on to an application what the owner of the page sent, and answers everything else itself.

    Args:
        application: The routes.
        address: What the page is bound to.
    """

    def __init__(self, application: Application, address: Address) -> None:
        self._application, self._address = application, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Args:
            scope: The request, as ASGI says.
            receive: Gives its body.
            send: Takes the answer.
        """
        if scope["type"] != "http":
            return
        answer = _Answer(send)
        headers = _headers(scope)
        try:
            await self._answer(scope, headers, receive, answer)
        except Exception:
            # The path is left out of the log, because it may hold a token.
            _log.exception("the page could not answer a request")
            if not answer.started:
                await _say(answer, scope, headers, _Refusal(500, UNEXPECTED))

    async def _answer(self, scope: Scope, headers: dict[str, list[str]], receive: Receive, send: Send) -> None:
        refusal = self._foreign(scope, headers)
        if refusal is None and self._address.token is not None:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token") if scope["path"] == "/" else None
            if given is not None and scope["method"] in _READING:
                await self._take_token(given[0], scope, headers, send)
                return
            if scope["path"] not in PUBLIC and not self._is_known(headers):
                refusal = _Refusal(401, "this page needs the token that was printed where it was started")
        if refusal is None and scope["method"] not in _READING:
            refusal = self._forged(headers)
        if refusal is None:
            await self._application(scope, receive, send)
        else:
            await _say(send, scope, headers, refusal)

    def _foreign(self, scope: Scope, headers: dict[str, list[str]]) -> _Refusal | None:
        """Refuse what was sent to another name than this page's, or by another page."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._address.is_own_name(hosts[0]):
            return _Refusal(421, f"this page answers at {self._address.url} only")
        sender = headers.get("sec-fetch-site", ["none"])[-1]
        opened = scope["path"] == "/" and headers.get("sec-fetch-mode", [""])[-1] == "navigate"
        if sender not in ("none", "same-origin") and not (opened and scope["method"] in _READING):
            return _Refusal(403, "requests of other pages are refused")
        return None

    def _forged(self, headers: dict[str, list[str]]) -> _Refusal | None:
        """Refuse a change that another page may have asked for in the name of this browser."""
        kind = headers.get("content-type", [""])[-1].partition(";")[0].strip().lower()
        if kind != "application/json":
            return _Refusal(415, "a change must be asked for with the content type application/json")
        origins = headers.get("origin", [])
        # Another page cannot send the bearer's header; programs, which can, send no origin.
        is_program = not origins and self._bears_token(headers)
        if origins != [f"http://{headers['host'][0]}"] and not is_program:
            return _Refusal(403, "a change must be asked for by this page itself (header Origin)")
        return None

    def _is_known(self, headers: dict[str, list[str]]) -> bool:
        if self._bears_token(headers):
            return True
        cookies: SimpleCookie = SimpleCookie()
        for header in headers.get("cookie", []):
            try:
                cookies.load(header)
            except CookieError:
                return False
        found = cookies.get(self._address.cookie)
        return found is not None and self._address.is_token(found.value)

    def _bears_token(self, headers: dict[str, list[str]]) -> bool:
        scheme, _, given = headers.get("authorization", [""])[-1].partition(" ")
        return scheme.lower() == "bearer" and self._address.is_token(given.strip())

    async def _take_token(self, given: str, scope: Scope, headers: dict[str, list[str]], send: Send) -> None:
        """Keep the right token as a cookie, and take it out of the address."""
        if not self._address.is_token(given):
            await _say(send, scope, headers, _Refusal(401, "this is not the token of this page"))
            return
        # With SameSite=Strict a link in a message would end at the page that asks for the token.
        cookie = f"{self._address.cookie}={given}; Path=/; HttpOnly; SameSite=Lax"
        await _respond(send, 303, [("location", "/"), ("set-cookie", cookie)], b"")


class _Answer:
    """Adds the headers of every answer, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.started = send, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = {name.lower() for name, _ in message.get("headers", [])}
            added = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await self._send(message)


def _headers(scope: Scope) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


async def _say(send: Send, scope: Scope, headers: dict[str, list[str]], refusal: _Refusal) -> None:
    """Refuse: with the page that asks for the token where a person opened the page without it, else with JSON."""
    more = [("www-authenticate", "Bearer")] if refusal.status == 401 else []
    if refusal.status == 401 and "text/html" in headers.get("accept", [""])[-1]:
        asset = ASSETS[TOKEN_PAGE]
        await _respond(send, 401, [("content-type", asset.kind), *more], asset.content)
        return
    body = json.dumps({"error": refusal.sentence}).encode()
    await _respond(send, refusal.status, [("content-type", "application/json"), *more], body)


async def _respond(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    length = [("content-length", str(len(body)))]
    encoded = [(name.encode(), value.encode()) for name, value in [*headers, *length]]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
