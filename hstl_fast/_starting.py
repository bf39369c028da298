"""The start of the program: Ctrl-C while modules are imported ends it at once, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import PurePath
from types import FrameType

# What shells call the end by Ctrl-C.
INTERRUPTED = 130
_PROGRAM = ("hstl-fast", "hstl_fast")


def _begin() -> None:
    """End at Ctrl-C until `end` is called, if this process is the program, and not one that imports the package."""
    # The command line as it was, also in a process that another one has started.
    first = next((argument for argument in sys.orig_argv[1:] if not argument.startswith("-")), "")
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Where Ctrl-C is ignored, such as behind `nohup`, it stays so.
    if PurePath(first).stem in _PROGRAM and in_main_thread and _handler() is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again."""
    if _handler() is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _handler() -> object:
    return signal.getsignal(signal.SIGINT)


def _leave(number: int, frame: FrameType | None) -> None:
    # Native code that is being imported turns exceptions into others, or swallows them.
    os._exit(INTERRUPTED)


_begin()
