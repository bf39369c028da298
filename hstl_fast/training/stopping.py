"""Signals that stop a training after the step that is being made."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_TO_GO_ON = 10.0


class Stopping:
    """A context in which Ctrl-C and SIGTERM are noted; the second signal acts as it would without it.

    Signals come to the main thread of a program; in another thread they stay as they are.

    Attributes:
        signal: The signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
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

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def outlive_signals(worker: int) -> None:
    """Let a process that reads for a loader go on for a while after a signal, and end when the training has ended.

    Ctrl-C, and what ends the job of a cluster, reach these processes, too, and the training would fail in its last step
    for want of them. A loader itself notices that its training was killed only where it has forked from it.

    Args:
        worker: The number of the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)
    training = multiprocessing.parent_process()
    if training is not None:
        threading.Thread(target=_end_after, args=(training,), daemon=True).start()


def _end_after(training: BaseProcess) -> None:
    wait([training.sentinel])
    os._exit(1)


def _end_soon(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    end = threading.Timer(_SECONDS_TO_GO_ON, os._exit, [0])
    end.daemon = True
    end.start()
