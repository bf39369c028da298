"""Graphs without a GPU: a computation that is called again where a graph would be replayed."""

import contextvars
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast.models import cuda_graphs


class _Event:
    """Of a device that has done everything at once."""

    def record(self) -> None: ...

    def wait(self) -> None: ...

    def synchronize(self) -> None: ...


def _recorded(compute: Callable[[], Tensor], room: Any) -> tuple[Tensor, Callable[[], None]]:
    answer, given = compute(), contextvars.copy_context()  # where tables stand in

    def replay() -> None:
        answer.copy_(given.run(compute))

    return answer, replay


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Let the CPU take the part of the GPU."""
    patch.setattr(cuda_graphs, "_event", _Event)
    patch.setattr(cuda_graphs, "_new_room", object)
    patch.setattr(cuda_graphs, "_pinned_like", torch.empty_like)
    patch.setattr(cuda_graphs, "_recorded", _recorded)
    patch.setattr(cuda_graphs, "_on", lambda _: nullcontext())
    patch.setattr(cuda_graphs, "is_capturing", lambda: False)
    patch.setattr(cuda_graphs, "DEVICE_TYPE", "cpu")


def counted(patch: pytest.MonkeyPatch) -> list[int]:
    """How many will be recorded, in its only element."""
    count, record = [0], cuda_graphs._recorded

    def recorded(compute: Callable[[], Tensor], room: Any) -> tuple[Tensor, Callable[[], None]]:
        count[0] += 1
        return record(compute, room)

    patch.setattr(cuda_graphs, "_recorded", recorded)
    return count
