"""Worker processes of packing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from hstl_fast.data.parts import Job, write_part
from hstl_fast.progress import Progress
from hstl_fast.silhouettes.errors import SilhouetteWarning

_STAGE = "packing"
_job: Job | None = None


def run_parts(
    job: Job, parts: list[int], done: int, workers: int, start_method: str | None, progress: Progress
) -> None:
    """Write parts, in this process or in several.

    Args:
        job: The job.
        parts: Numbers of the parts.
        done: Sequences that were done before, for the progress.
        workers: Processes.
        start_method: How they are started; None for the way of `multiprocessing`.
        progress: Called with the number of sequences.

    Raises:
        ValueError: There is no such start method.
        RuntimeError: A process was killed.
    """
    total = len(job.sequences)
    progress(_STAGE, done, total)
    # A start method that is asked for is checked, even where one process is enough.
    context = multiprocessing.get_context(start_method)
    workers = min(workers, len(parts))
    if workers <= 1 and start_method is None:
        for part in parts:
            done += _write(job, part)
            progress(_STAGE, done, total)
        return
    try:
        with ProcessPoolExecutor(max(1, workers), context, _initialise, (job, os.getpid())) as pool:
            try:
                for count in _counts(pool, parts, 2 * workers):
                    done += count
                    progress(_STAGE, done, total)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, perhaps for want of memory; "
            "the same command goes on from there, and fewer --workers need less memory"
        ) from error


def _counts(pool: ProcessPoolExecutor, parts: list[int], ahead: int) -> Iterable[int]:
    """The numbers of sequences of parts as they are finished; few are in the queue at a time."""
    remaining = iter(parts)
    running: set[Future[int]] = {pool.submit(_write_mine, part) for part in islice(remaining, ahead)}
    while running:
        ready, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(_write_mine, part) for part in islice(remaining, len(ready))}
        for future in ready:
            yield future.result()


def _initialise(job: Job, parent: int) -> None:
    global _job
    _job = job
    # The parent decides what an interrupt means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if multiprocessing.get_start_method() != "forkserver" and os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, however that was."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _write_mine(part: int) -> int:
    assert _job is not None
    return _write(_job, part)


def _write(job: Job, part: int) -> int:
    # What is left out stands in the file and in the report, so a warning for each would say it twice.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SilhouetteWarning)
        return write_part(job, part)
