"""Jobs that do what their rows are called; they run in a process of their own, which need not wait for torch."""

import os
import signal
import sys
import time
from unittest import mock

from benchmarks.gpu.supervise import Job, Reporter


def obey(job: Job, reporter: Reporter) -> None:
    """Die, hang, raise or break the device where a row is called so, and otherwise finish."""
    for key in job.keys:
        reporter.started(key)
        order = key.split("-")[0]
        if order == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == "hang":
            time.sleep(60)
        if order == "raise":
            raise ValueError("no such thing in /a/long/way/to/file.py")
        reporter.finished(key, {"status": "ok", "process": os.getpid()})
        if order == "break":
            reporter.leave()


def die_together(job: Job, reporter: Reporter) -> None:
    """End without a word about the row in work, unless there is one only."""
    if len(job.keys) > 1 or job.keys == ("die-1",):
        os._exit(7)
    obey(job, reporter)


def leave_at_once(job: Job, reporter: Reporter) -> None:
    """Find the device broken before there is any row."""
    reporter.leave()


def skip_a_row(job: Job, reporter: Reporter) -> None:
    """End well with a row missing."""
    reporter.finished(job.keys[0], {"status": "ok"})


def run_tests(job: Job, reporter: Reporter) -> None:
    """Run the tests of the folder that the job is named after."""
    import pytest
    import torch

    from benchmarks.gpu.row_plugin import RowPlugin

    plugin = RowPlugin(job.keys, reporter, torch.device("cpu"))
    arguments = [job.name, f"--rootdir={job.name}", f"--config-file={job.name}/pytest.ini", "-p", "no:cacheprovider"]
    pytest.main(arguments, plugins=[plugin])
    if plugin.broken:
        reporter.leave()


def run_tests_that_break_the_device(job: Job, reporter: Reporter) -> None:
    """Run the tests of a folder on a device that does not answer after a failure."""
    from benchmarks.gpu import guarded

    with mock.patch.object(guarded, "answers", return_value=False):
        run_tests(job, reporter)


class Unimportable:
    """Cannot be brought to another process."""

    def __call__(self, job: Job, reporter: Reporter) -> None:
        raise NotImplementedError

    def __setstate__(self, state: object) -> None:
        sys.exit("not here")

    def __getstate__(self) -> object:
        return {"a": 1}
