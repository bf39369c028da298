"""Trainings in processes of their own, which can be killed; they start fast, from a process that is ready."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch
import torch.distributed as dist

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
        while process.is_alive() and exists(process.pid):
            time.sleep(0.002)


def exists(pid: int | None) -> bool:
    """Whether there is a process of that number."""
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


def variables_of_torchrun(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment that torchrun gives to a process."""
    return {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """A port that no program uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def in_processes(size: int, check: Callable[[], None], port: int) -> None:
    """Call a function in several processes that share a process group."""
    started = [_context.Process(target=_in_group, args=(rank, size, port, check)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(_SECONDS)
        process.kill()
    assert [process.exitcode for process in started] == [0] * size


def _in_group(rank: int, size: int, port: int, check: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    check()
    dist.destroy_process_group()
