"""The output of `hstl-fast train` while it trains: a live line on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from hstl_fast.cli.output import warn
from hstl_fast.training import Status, TrainingConfig, Watcher, describe_evaluation

# Seconds between lines where there is no terminal.
_BETWEEN_LINES = 10.0
# The speed is that of so many steps.
_STEPS_OF_SPEED = 50
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

Show = Callable[[Status, str], None]


class TerminalWatcher(Watcher):
    """Prints what a training tells.

    Args:
        config: The configuration.
        show: Called with each step and what is to be said about it.
        clock: Gives the time in seconds.
    """

    def __init__(self, config: TrainingConfig, show: Show, clock: Callable[[], float] = time.monotonic) -> None:
        batch = config.batch
        self._frames, self._show, self._clock = batch.people * batch.sequences * batch.frames, show, clock
        self._times: deque[float] = deque(maxlen=_STEPS_OF_SPEED)
        self._losses = ""
        self._remarks: list[str] = []

    def on_step(self, status: Status) -> None:
        """Show the step."""
        self._times.append(self._clock())
        parts = [f"loss {status.loss:.4f}{self._losses}", f"lr {status.lr:.3g}"]
        seconds = self._times[-1] - self._times[0]
        if seconds > 0:
            parts.append(f"{self._frames * (len(self._times) - 1) / seconds:.0f} frames/s")
        if status.step < status.steps:
            parts.append(f"{duration(status.seconds_left)} left")
        self._show(status, ", ".join(parts))

    def on_log(self, entry: Mapping[str, Any]) -> None:
        """Take the mean losses one by one; those of a step are not told."""
        names = ("triplet", "cross_entropy")
        each = [f"{name.replace('_', ' ')} {entry[name]:.4f}" for name in names if name in entry]
        self._losses = f" (means to step {entry['step']}: {', '.join(each)})" if each else ""

    def on_evaluation(self, entry: Mapping[str, Any]) -> None:
        """Print the numbers, and remarks that were not printed before."""
        click.echo(describe_evaluation(entry))
        for remark in entry["remarks"]:
            if remark not in self._remarks:
                self._remarks.append(remark)
                warn(f"Note: {remark}")

    def on_notice(self, sentence: str) -> None:
        """Print the sentence."""
        warn(f"Warning: {sentence}")


class _Lines:
    """Prints a step now and then, and the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, float("-inf")

    def __call__(self, status: Status, text: str) -> None:
        if status.step < status.steps and self._clock() - self._last < _BETWEEN_LINES:
            return
        self._last = self._clock()
        warn(f"Step {status.step} of {status.steps}: {text}")


@contextmanager
def watch(config: TrainingConfig) -> Iterator[TerminalWatcher]:
    """Make what prints a training's steps while the block runs.

    Args:
        config: The configuration.

    Yields:
        The watcher.
    """
    if not sys.stderr.isatty():
        yield TerminalWatcher(config, _Lines())
        return
    columns = (TextColumn("Step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[text]}"))
    # Lines to a terminal stand above the live one; those to a file stay there.
    above = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        task = bar.add_task("", total=config.schedule.steps, text="")
        yield TerminalWatcher(config, lambda status, text: bar.update(task, completed=status.step, text=text))


def duration(seconds: float) -> str:
    """Write a time with its two largest units.

    Args:
        seconds: The time.

    Returns:
        A text such as `2 h 3 min`.
    """
    left = max(0, round(seconds))
    first = next((i for i, (size, _) in enumerate(_UNITS) if left >= size), len(_UNITS) - 1)
    parts = []
    for size, unit in _UNITS[first : first + 2]:
        parts.append(f"{left // size} {unit}")
        left %= size
    return " ".join(parts[: 1 if len(parts) > 1 and parts[1].startswith("0 ") else 2])
