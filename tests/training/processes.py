"""Trainings in processes of their own, which can be killed; they start fast, from a process that is ready."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch

from hstl_fast.training import TrainingConfig, fit

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training.processes", "lightning_fabric"])
_SECONDS = 60


def train(config: TrainingConfig, prepare: Callable[[], None] | None = None, variables: Any = None) -> None:
    """Train in this process, after something else that a test wants."""
    torch.set_num_threads(1)
    os.environ.update(variables or {})
    if prepare is not None:
        prepare()
    fit(config)


@contextmanager
def training(
    config: TrainingConfig,
    prepare: Callable[[], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[ForkServerProcess]:
    """A training that has been started, and is killed at the end of the block if it has not ended."""
    process = _context.Process(target=train, args=(config, prepare, variables))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        # `join` would also wait for the processes that read for it, which end some seconds later.
        while process.is_alive() and _exists(process.pid):
            time.sleep(0.002)


def _exists(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], process: ForkServerProcess) -> None:
    """Wait until something has happened in a training."""
    end = time.monotonic() + _SECONDS
    while not condition():
        assert process.is_alive(), f"the training ended with exit code {process.exitcode}"
        assert time.monotonic() < end
        time.sleep(0.002)
