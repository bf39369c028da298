"""Jobs that do what their rows are called; they run in a process of their own, which need not wait for torch."""

import os
import signal
import sys
import time

from benchmarks.gpu.supervise import Job, Say


def obey(job: Job, say: Say) -> None:
    """die, hang, raise, break (the device) or, whatever else a row is called, be fine."""
    for key in job.keys:
        say.doing(key)
        order = key.split("-")[0]
        if order == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == "hang":
            time.sleep(60)
        if order == "raise":
            raise ValueError("no such thing in /a/long/way/to/file.py")
        say.row(key, {"status": "ok", "process": os.getpid()})
        if order == "break":
            say.leave()


def die_together(job: Job, say: Say) -> None:
    """End without a word about the row in work, unless there is one only."""
    if len(job.keys) > 1 or job.keys == ("die-1",):
        os._exit(7)
    obey(job, say)


def leave_at_once(job: Job, say: Say) -> None:
    """Find the device broken before there is any row."""
    say.leave()


def skip_a_row(job: Job, say: Say) -> None:
    """End well with a row missing."""
    say.row(job.keys[0], {"status": "ok"})


class Unimportable:
    """Cannot be brought to another process."""

    def __call__(self, job: Job, say: Say) -> None:
        raise NotImplementedError

    def __setstate__(self, state: object) -> None:
        sys.exit("not here")

    def __getstate__(self) -> object:
        return {"a": 1}
