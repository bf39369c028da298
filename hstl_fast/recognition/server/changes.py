"""A count of changes that any thread raises and that tasks of the server's event loop wait for."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Changes:
    """Wakes the tasks that wait whenever something has changed; nothing is queued for those that are slow.

    Attributes:
        count: The number of changes so far.
        closed: Whether the page is closing, so that answers that never end have to.
    """

    def __init__(self) -> None:
        self.count = 0
        self.closed = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop whose tasks wait; called once, in its thread.

        Args:
            loop: The event loop.
        """
        with self._lock:
            self._loop = loop

    def raise_(self) -> None:
        """Say that something has changed; from any thread."""
        with self._lock:
            self.count += 1
            loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End all waiting for good; from any thread."""
        self.closed = True
        self.raise_()

    async def after(self, count: int, seconds: float) -> int:
        """Wait for a change.

        Args:
            count: The number of changes that the caller knows.
            seconds: How long to wait at most.

        Returns:
            The number of changes now; where it is `count`, nothing has changed in this time.
        """
        if self.count == count and not self.closed:
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(change)
            try:
                await asyncio.wait({change}, timeout=seconds)
            finally:
                self._waiting.discard(change)
        return self.count

    def _wake(self) -> None:
        for change in self._waiting:
            if not change.done():
                change.set_result(None)
