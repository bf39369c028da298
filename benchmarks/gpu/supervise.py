"""Work in a process of its own: one that dies, hangs or is left with a broken device costs a row, not the run."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.core.text import in_one_line

# The outcome of a measurement: its `status`, a `reason` where that needs one, and figures.
Row = dict[str, Any]
# The status of a row for which no time was left; another run tries it again.
NOT_REACHED = "not reached"
# The status of a row that took longer than it may; another run tries again, and may find half of it compiled.
STOPPED = "stopped"
# Seconds that a process may take to import torch and report that it did.
START = 120.0


class Job(NamedTuple):
    """Rows that are measured together, by key. limit: seconds that each of them may take."""

    stage: str
    name: str
    keys: tuple[str, ...]
    limit: float


class CannotStart(Exception):
    """The working process ends before it begins."""


class Reporter:
    """The messages of a job to its supervisor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, key: str) -> None:
        """Report that work on this row begins: it is to blame if the process dies."""
        self._connection.send(("started", key, None))

    def finished(self, key: str, row: Row) -> None:
        """Report a row."""
        self._connection.send(("finished", key, row))

    def leave(self) -> None:
        """End the process, whose device no longer answers; a new one does the rest."""
        self._connection.send(("leaving", "", None))
        sys.exit(0)


Execute = Callable[[Job, Reporter], None]
Record = Callable[[str, Row], None]


def supervise(jobs: Sequence[Job], execute: Execute, record: Record, deadline: float, log: Path) -> None:
    """Run the jobs in order until `deadline` (`time.monotonic()`); every key of theirs gets a row.

    `execute` runs in other processes and must be importable there. What they print goes to `log`.
    """
    queue = deque(jobs)
    while queue and time.monotonic() < deadline:
        _Worker(queue, execute, record, deadline, log).run()
        while queue and not queue[0].keys:
            queue.popleft()
    for job in queue:
        for key in job.keys:
            record(key, {"status": NOT_REACHED})


class _Worker:
    """One process and the part of the queue it gets through."""

    def __init__(self, queue: deque[Job], execute: Execute, record: Record, deadline: float, log: Path) -> None:
        self.queue, self.record, self.deadline = queue, record, deadline
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe(duplex=False)
        self.process = spawn.Process(target=_serve, args=(theirs, execute, list(queue), str(log)))
        self.process.start()
        theirs.close()
        self.doing: str | None = None
        self.started = self.progress = False
        self.since = time.monotonic()

    def run(self) -> None:
        try:
            while self.queue and self._heard():
                pass
        finally:
            self.process.kill()
            self.process.join()
            self.connection.close()

    def _heard(self) -> bool:
        """Wait for one message and act on it; False when this process cannot go on."""
        limit = self.queue[0].limit if self.started else START
        now = time.monotonic()
        wait = max(0.0, min(self.since + limit, self.deadline) - now)
        try:
            if not self.connection.poll(wait):
                return self._too_slow(limit)
            kind, key, value = self.connection.recv()
        except EOFError:
            return self._died()
        if kind == "leaving":
            return self._left()
        if kind == "started":
            self.doing = key
        elif kind == "finished":
            self._finish(key, value)
            self.doing = None
        elif kind == "done":
            for left in self.queue[0].keys:
                self.record(left, value or {"status": "failed", "reason": "the job ended without this row"})
            self.queue.popleft()
        self.started = True
        self.since = time.monotonic()
        return True

    def _too_slow(self, limit: float) -> bool:
        if time.monotonic() < self.deadline:
            self._blame({"status": STOPPED, "reason": f"stopped after {limit:.0f} seconds, its limit"})
        return False

    def _left(self) -> bool:
        """Its device is broken; without any row so far, the work that broke it must not begin again."""
        if not self.progress:
            self._blame({"status": "died", "reason": "its device no longer answered"})
        return False

    def _died(self) -> bool:
        self.process.join()
        if not self.started:
            raise CannotStart(f"the working process ended at once ({ending(self.process.exitcode)}); log.txt says why")
        self._blame({"status": "died", "reason": f"its process {ending(self.process.exitcode)}"})
        return False

    def _blame(self, row: Row) -> None:
        """Give `row` to the key in work; where it is not known which that was, try each alone."""
        job = self.queue[0]
        if self.doing in job.keys or len(job.keys) == 1:
            self._finish(self.doing or job.keys[0], row)
        else:
            self.queue.popleft()
            self.queue.extendleft(job._replace(keys=(single,)) for single in reversed(job.keys))

    def _finish(self, key: str, row: Row) -> None:
        job = self.queue[0]
        self.progress = True
        self.record(key, row)
        self.queue[0] = job._replace(keys=tuple(left for left in job.keys if left != key))


def ending(code: int | None) -> str:
    """The end of a process in words."""
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _serve(connection: Connection, execute: Execute, jobs: Sequence[Job], log: str) -> None:
    die_with_parent()
    with Path(log).open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    reporter = Reporter(connection)
    with contextlib.suppress(BrokenPipeError):
        connection.send(("ready", "", None))
        for job in jobs:
            print(f"# {job.name}", flush=True)
            failure = None
            try:
                execute(job, reporter)
            except Exception as error:
                traceback.print_exc()
                failure = {"status": "failed", "reason": in_one_line(error)}
            connection.send(("done", job.name, failure))


def die_with_parent() -> None:
    """Let this process end with its parent, so that a killed run leaves none on the device (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
