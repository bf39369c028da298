"""Several processes that share one task, such as `torchrun --nproc-per-node 2 -m hstl_fast embed ...` starts them.

Only counters and short messages go between the processes, through a store of torch.distributed, so that neither a
collective backend nor a device has to be agreed upon. One process alone needs no store.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch.distributed

_Result = TypeVar("_Result")
# The variables that torchrun sets for every process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# How long the processes wait for one another to start.
_STARTING = timedelta(minutes=10)
_SECONDS_BETWEEN_LOOKS = 0.05
# More than any number of work units: added to a counter of units, it leaves none to take.
_ALL_UNITS = 1 << 40


class ProcessError(RuntimeError):
    """Another of the processes failed; the message is the one of its error."""


class _Store(Protocol):
    def add(self, key: str, amount: int, /) -> int:
        """Add to a counter that begins at 0, and return the sum."""

    def set(self, key: str, value: str, /) -> None:
        """Keep a value for all processes."""

    def get(self, key: str, /) -> bytes:
        """Return the value that a process has set."""

    def check(self, keys: list[str], /) -> bool:
        """Tell whether all keys have values."""


class _OneProcess:
    """The store of a process alone."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._values: dict[str, bytes] = {}

    def add(self, key: str, amount: int) -> int:
        self._counters[key] = self._counters.get(key, 0) + amount
        return self._counters[key]

    def set(self, key: str, value: str) -> None:
        self._values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self._values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)


class Processes:
    """This process and those beside it that do one task together.

    All of them call the same methods in the same order.

    Attributes:
        rank: The number of this process, from 0.
        size: The number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: _Store | None = None) -> None:
        self.rank = rank
        self.size = size
        self._store: _Store = _OneProcess() if store is None else store
        # An elastic restart of the processes may find the store of the attempt before.
        self._prefix = f"hstl_fast/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._meetings = 0

    @classmethod
    def join(cls) -> Processes:
        """Join the processes that torchrun has started, or be one alone.

        Returns:
            The processes; where torchrun's variables are not set there is one.

        Raises:
            ValueError: A variable of torchrun is not a number, or the rank is not below the number of processes.
            RuntimeError: The processes cannot find one another.
        """
        rank, size = rank_and_size()
        if size == 1:
            return cls()
        if not torch.distributed.is_available():
            raise RuntimeError(f"expected torch.distributed for {size} processes, got a torch without it")
        from torch.distributed.rendezvous import rendezvous

        store, rank, size = next(rendezvous("env://", rank, size, timeout=_STARTING))
        return cls(rank, size, store)

    def together(
        self, work: Callable[[], _Result], while_waiting: Callable[[], object] = lambda: None
    ) -> list[_Result]:
        """Do some work in every process, and wait for all; an error in one process ends the work in all.

        Args:
            work: A function; what it returns goes through JSON if there are several processes.
            while_waiting: Called again and again until the others are ready.

        Returns:
            The results of all processes, by rank.

        Raises:
            ProcessError: Another process failed.
            Exception: Whatever `work` raises here.
        """
        if self.size == 1:
            return [work()]
        self._meetings += 1
        try:
            outcome: dict[str, Any] = {"result": work()}
        except Exception as error:
            self._store.add(self._units(), _ALL_UNITS)
            self._exchange({"error": " ".join(str(error).split()) or type(error).__name__}, while_waiting)
            raise
        outcomes = self._exchange(outcome, while_waiting)
        for rank, each in enumerate(outcomes):
            if "error" in each:
                raise ProcessError(f"process {rank} of {self.size}: {each['error']}")
        return [each["result"] for each in outcomes]

    def units(self, count: int) -> Iterator[int]:
        """Take units of work, inside the work of `together`, as fast as this process does them.

        Args:
            count: The number of units.

        Yields:
            Numbers from 0 to `count - 1`, each in one process only. After an error in a process there are no more.
        """
        if self.size == 1:
            yield from range(count)
            return
        while (unit := self._store.add(self._units(), 1) - 1) < count:
            yield unit

    def count(self, name: str, amount: int = 0) -> int:
        """Add to a counter that all processes share.

        Args:
            name: The name of the counter.
            amount: What to add.

        Returns:
            The sum of what was added by all processes so far.
        """
        return self._store.add(f"{self._prefix}/counter/{name}", amount)

    def _units(self) -> str:
        return f"{self._prefix}/units/{self._meetings}"

    def _exchange(self, outcome: dict[str, Any], while_waiting: Callable[[], object]) -> list[dict[str, Any]]:
        """Hand over an outcome, and get those of all processes."""
        keys = [f"{self._prefix}/outcome/{self._meetings}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(outcome))
        for key in keys:  # the store's own waiting has a time limit
            while not self._store.check([key]):
                while_waiting()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        while_waiting()
        outcomes = [json.loads(self._store.get(key)) for key in keys]
        self._leave()
        return outcomes

    def _leave(self) -> None:
        """Wait until all have read: the process of rank 0 may hold the store, and end."""
        key = f"{self._prefix}/read/{self._meetings}"
        self._store.add(key, 1)
        while self.rank == 0 and self._store.add(key, 0) < self.size:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def rank_and_size() -> tuple[int, int]:
    """Find the number of this process and how many there are in the variables of torchrun; nothing is awaited.

    Returns:
        The rank, from 0, and the number of processes: 0 and 1 where the variables are not all set.

    Raises:
        ValueError: A variable is not a number, or the rank is not below the number of processes.
    """
    if not all(os.environ.get(name) for name in _VARIABLES):
        return 0, 1
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        found = f"RANK={os.environ['RANK']}, WORLD_SIZE={os.environ['WORLD_SIZE']}"
        raise ValueError(f"expected numbers RANK below WORLD_SIZE, as torchrun sets them, got {found}")
    return rank, size
