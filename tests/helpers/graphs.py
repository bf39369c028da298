"""CUDA graphs without a GPU: the computation is called again where a graph would be replayed."""

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast.models import cuda_graphs


class _Event:
    """An event of a device that does everything at once."""

    def record(self) -> None: ...

    def wait(self) -> None: ...

    def synchronize(self) -> None: ...


def _captured(compute: Callable[[], Tensor], pool: Any) -> tuple[Tensor, Callable[[], None]]:
    # The static tables are active in the context of the capture alone.
    answer, given = compute(), contextvars.copy_context()

    def replay() -> None:
        answer.copy_(given.run(compute))

    return answer, replay


def simulate(patch: pytest.MonkeyPatch) -> None:
    """Let the CPU take the part of the GPU."""
    patch.setattr(cuda_graphs, "_event", _Event)
    patch.setattr(cuda_graphs, "_new_pool", object)
    patch.setattr(cuda_graphs, "_pinned_like", torch.empty_like)
    patch.setattr(cuda_graphs, "_captured", _captured)
    patch.setattr(cuda_graphs, "_pool_bytes", lambda _: 0)
    patch.setattr(cuda_graphs, "_on", lambda _: nullcontext())
    patch.setattr(cuda_graphs, "is_capturing", lambda _: False)
    patch.setattr(cuda_graphs, "DEVICE_TYPE", "cpu")


def counted(patch: pytest.MonkeyPatch) -> list[int]:
    """The number of graphs captured from now on, in its only element."""
    count, capture = [0], cuda_graphs._captured

    def captured(compute: Callable[[], Tensor], pool: Any) -> tuple[Tensor, Callable[[], None]]:
        count[0] += 1
        return capture(compute, pool)

    patch.setattr(cuda_graphs, "_captured", captured)
    return count


def several_devices(patch: pytest.MonkeyPatch, captured: list[int]) -> list[int]:
    """Let torch see several GPUs, of which `captured` capture their current streams; the current GPU is returned."""
    current = [0]

    @contextmanager
    def use(device: torch.device) -> Iterator[None]:
        before, current[0] = current[0], device.index
        yield
        current[0] = before

    patch.setattr(torch.cuda, "device", use)
    patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: current[0] in captured)
    return current
