"""Signals to the processes that read for a training."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

_SECONDS_TO_GO_ON = 10.0


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
