"""Signals that end a program where it is ready to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """A context in which Ctrl-C and SIGTERM are noted; the second signal acts as it would without it.

    Signals come to the main thread of a program; in another thread they stay as they are.

    Args:
        end: Called once, from the handler: it may acquire no lock. None: the signal is noted only.

    Attributes:
        signal: The signal that came, or None.
    """

    def __init__(self, end: Callable[[], None] | None = None) -> None:
        self.signal: signal.Signals | None = None
        self._end = end
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()
        if self._end is not None:
            self._end()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
