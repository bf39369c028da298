"""The start of the program: Ctrl-C while modules are imported ends it at once, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import PurePath
from types import FrameType

# What shells call the end by Ctrl-C.
INTERRUPTED = 130
# The names of the script on all systems; one of another program may begin alike.
_SCRIPTS = ("hstl-fast", "hstl-fast.exe", "hstl-fast-script.py")
_MODULES = ("hstl_fast", "hstl_fast.__main__")


def _begin() -> None:
    """End at Ctrl-C until `end` is called, if this process is the program, and not one that imports the package."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Where Ctrl-C is ignored, such as behind `nohup`, it stays so.
    if _is_program(sys.orig_argv) and in_main_thread and _handler() is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _is_program(command: Sequence[str]) -> bool:
    """Whether a command line of Python runs the script `hstl-fast` or the module `hstl_fast`."""
    rest = iter(command[1:])
    for argument in rest:
        if argument == "-" or not argument.startswith("-"):
            return PurePath(argument).name in _SCRIPTS
        if argument == "--check-hash-based-pycs":
            next(rest, None)
        letters = "" if argument.startswith("--") else argument[1:]
        for place, letter in enumerate(letters, 1):
            if letter in "cmWX":  # what follows is its value
                value = letters[place:] or next(rest, "")
                if letter in "cm":
                    return letter == "m" and value in _MODULES
                break
    return False


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
