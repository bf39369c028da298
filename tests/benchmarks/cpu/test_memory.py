"""Memory is what one step takes, measured in another process."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.core.names import WALKERS
from benchmarks.core.plain import frozen
from benchmarks.cpu import memory, workloads
from benchmarks.cpu.implementations import (
    Implementation,
)
from benchmarks.cpu.workloads import Workload
from tests.benchmarks.cpu.helpers import EAGER, small_workload


class Hungry(nn.Module):
    """Takes 64 MiB for a moment."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y + torch.ones(2**24)[0] - 1


@pytest.mark.skipif(not memory.PEAK_RESET.exists(), reason="needs Linux")
def test_memory_is_what_a_step_takes() -> None:
    hungry = Implementation("hungry", lambda network, training: Hungry(frozen(network, training)))
    assert 60 < memory.of_step(small_workload(), hungry) / 2**20 < 80
    assert memory.of_step(small_workload(), EAGER) / 2**20 < 16


@pytest.mark.slow
@pytest.mark.skipif(not memory.PEAK_RESET.exists(), reason="needs Linux")
def test_memory_is_measured_in_another_process() -> None:
    peak = memory.peak(("embedding", "casia-b", "walkers", "3"), "eager")
    assert peak.missing is None
    assert peak.bytes is not None
    assert peak.bytes > 4 * (64 + 64) * 3 * 64 * 44  # stage 2's input and output, at least
    absent = memory.peak(("embedding", "nowhere", "people", "3"), "eager")
    assert absent.bytes is None
    assert absent.missing is not None
    assert "nowhere" in absent.missing


@pytest.mark.parametrize(
    ("recipe", "workload"),
    [
        (("embedding", "casia-b", "people", "12", "30"), workloads.embedding("casia-b", (12, 30))),
        (("training_step", "casia-b", "walkers"), workloads.training_step("casia-b", WALKERS)),
    ],
    ids=["embedding", "training step"],
)
def test_memory_knows_the_workloads(recipe: tuple[str, ...], workload: Workload) -> None:
    found = memory.workload_of(recipe)
    assert (found.name, found.training) == (workload.name, workload.training)
    assert all(map(torch.equal, found.inputs, workload.inputs))
