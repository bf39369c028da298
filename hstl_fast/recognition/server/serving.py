"""The web server in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from hstl_fast.recognition.server.changes import Changes

if TYPE_CHECKING:
    from uvicorn import Server

# A client that does not take its answer is left alone after so many seconds.
_SECONDS_TO_END = 3
# Seconds for the end of the server with all that it has to tidy.
_LONGEST_END = 15.0
_MOST_CONNECTIONS = 100
# A connection on which no request has come whole after so many seconds is ended, and its place given to others.
_SECONDS_FOR_REQUEST = 10.0


class ServingThread:
    """Serves an application until it is closed.

    Args:
        application: An ASGI application.
        listening: The bound socket, which the thread closes.
        changes: Learns of the thread's event loop, and is closed first, so that endless answers end.
    """

    def __init__(self, application: Any, listening: socket.socket, changes: Changes) -> None:
        self._server = _server(application)
        self._listening, self._changes = listening, changes
        self._failure: BaseException | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Begin, and return once requests are answered.

        Raises:
            RuntimeError: The server could not be started.
        """
        self._thread.start()
        self._running.wait()
        if self._failure is not None:
            raise RuntimeError(f"the page could not be served: {self._failure}") from self._failure

    def wait(self) -> None:
        """Wait until the thread has ended; an interrupt ends the waiting.

        Raises:
            RuntimeError: An error ended it.
        """
        self._thread.join()
        if self._failure is not None:
            raise RuntimeError(f"the page has failed: {self._failure}") from self._failure

    def close(self) -> None:
        """End all answers and the thread; one that does not end is left behind, and ends with the program."""
        self._changes.close()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_LONGEST_END)
        self._listening.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure
        finally:
            self._running.set()

    async def _serve(self) -> None:
        self._changes.attach(asyncio.get_running_loop())
        # The socket listens already: what connects before the server accepts it waits.
        self._running.set()
        tidying = asyncio.ensure_future(self._end_idle_connections())
        try:
            await self._server.serve(sockets=[self._listening])
        finally:
            tidying.cancel()
            # What a client does not take would keep its connection open.
            for connection in list(self._server.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0)

    async def _end_idle_connections(self) -> None:
        """End connections that wait for a request, or for the rest of its head, for too long; uvicorn does not."""
        import h11

        waiting: dict[Any, tuple[Any, float]] = {}
        while True:
            await asyncio.sleep(_SECONDS_FOR_REQUEST / 10)
            now, before = time.monotonic(), waiting
            waiting = {}
            connections: list[Any] = list(self._server.server_state.connections)
            for connection in connections:
                if connection.conn.their_state is not h11.IDLE or connection.transport is None:
                    continue
                request, since = before.get(connection, (None, now))
                # One that has answered a request meanwhile waits for another one.
                waiting[connection] = connection.cycle, since if request is connection.cycle else now
                if now - waiting[connection][1] > _SECONDS_FOR_REQUEST:
                    connection.transport.abort()


def check_packages() -> None:
    """Import what serves the page.

    Raises:
        ImportError: Starlette or uvicorn is missing.
    """
    for module, package in (("starlette.applications", "Starlette"), ("uvicorn", "uvicorn")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"the page needs {package}, which could not be imported ({error}); "
                "install it with: pip install 'hstl_fast[recognition]'"
            ) from error


def _server(application: Any) -> Server:
    import uvicorn

    # Addresses are not logged, because one of them holds the token.
    return uvicorn.Server(
        uvicorn.Config(
            application,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            # What others send is no news for the terminal; the guard logs errors of this program.
            log_level="critical",
            log_config=None,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
    )
