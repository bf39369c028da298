"""A gallery divided over processes: each searches its share, and all get the answer that one process would give.

The processes find one another by torch.distributed, with the backend gloo, on one machine or several. Started by
`torchrun --nproc-per-node 2 program.py`:

    with Shards.join() as shards:
        share = shards.share(len(ids))
        found = shards.nearest_people(probe, vectors[share], people[share], count)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from hstl_fast.distributed import ProcessError, rank_and_size
from hstl_fast.progress import Progress, silent
from hstl_fast.recognition.search import Nearest, best, nearest_people

# How long a process waits for the others, which may still be reading their shares.
_WAITING = timedelta(minutes=30)


class _Outcome(NamedTuple):
    """The finding of a process in its share of so many rows, or the message of its error."""

    rows: int
    found: Nearest | None
    error: str = ""


class Shards:
    """This process and those beside it that search one gallery together.

    Attributes:
        rank: The number of this process, from 0.
        size: The number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Take part in the process group of torch.distributed that is there, or be one process alone.

        Args:
            rank: The number of this process.
            size: The number of processes.
        """
        self.rank = rank
        self.size = size

    @classmethod
    @contextmanager
    def join(cls) -> Iterator[Shards]:
        """Join the processes that torchrun has started, and leave them at the end; be one alone without torchrun.

        Where torch.distributed has been initialised already, its process group is used and stays.

        Yields:
            The processes.

        Raises:
            ValueError: A variable of torchrun is not a number, or the rank is not below the number of processes.
            RuntimeError: The processes cannot find one another, or torch has no gloo.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            yield cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
            return
        rank, size = rank_and_size()
        if size == 1:
            yield cls()
            return
        if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
            raise RuntimeError(f"expected torch.distributed with gloo for {size} processes, got a torch without it")
        torch.distributed.init_process_group("gloo", rank=rank, world_size=size, timeout=_WAITING)
        try:
            yield cls(rank, size)
        finally:
            torch.distributed.destroy_process_group()

    def share(self, rows: int) -> slice:
        """Find the rows of a gallery that fall to this process; those of all processes follow one another.

        Args:
            rows: The rows of the gallery.

        Returns:
            A slice; shares differ by one row at most.
        """
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def nearest_people(
        self,
        probe: NDArray[np.float32] | None,
        vectors: NDArray[np.float32],
        people: NDArray[np.int64],
        count: int,
        progress: Progress = silent,
    ) -> Nearest:
        """Find the nearest people in the shares of all processes, as `search.nearest_people` does in one gallery.

        All processes call this alike. An error in one of them is raised in all.

        Args:
            probe: Embeddings `[n, P, C]`, of which those of process 0 are taken; the others may give None.
            vectors: The embeddings of this process's share `[k, P, C]`.
            people: The person of each row of the share, int `[k]`, numbered alike in all processes.
            count: How many people to find, 1 or more, the same in all processes.
            progress: Called as `progress(stage, done, total)` with rows of this share.

        Returns:
            The same in all processes and, to the bit, what one process finds in all shares one after another, by rank;
            `rows` count from the first row of process 0.

        Raises:
            ValueError: As `search.nearest_people` does.
            ProcessError: Another process failed; the message is the one of its error.
        """
        probes = self._from_first(probe)
        try:
            outcome = _Outcome(len(vectors), nearest_people(probes, vectors, people, count, progress))
        except Exception as error:
            self._exchange(_Outcome(0, None, " ".join(str(error).split()) or type(error).__name__))
            raise
        outcomes = self._exchange(outcome)
        for rank, each in enumerate(outcomes):
            if each.found is None:
                raise ProcessError(f"process {rank} of {self.size}: {each.error}")
        firsts = np.cumsum([0, *(each.rows for each in outcomes)])
        shifted = [
            _shifted(each.found, int(first)) for each, first in zip(outcomes, firsts, strict=False) if each.found
        ]
        return best(Nearest(*(np.concatenate(each, axis=1) for each in zip(*shifted, strict=True))), count)

    def _from_first(self, probe: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """The probes of process 0."""
        given: list[Any] = [probe]
        if self.size > 1:
            torch.distributed.broadcast_object_list(given, src=0)
        if given[0] is None:
            raise ValueError("probe must be given in process 0; got None")
        probes: NDArray[np.float32] = given[0]
        return probes

    def _exchange(self, outcome: _Outcome) -> list[_Outcome]:
        """Hand over an outcome, and get those of all processes."""
        if self.size == 1:
            return [outcome]
        outcomes: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(outcomes, outcome)
        return outcomes


def _shifted(found: Nearest, first: int) -> Nearest:
    """A finding in a share, whose first row has this number in the whole gallery."""
    return found._replace(rows=np.where(found.rows < 0, found.rows, found.rows + first))
