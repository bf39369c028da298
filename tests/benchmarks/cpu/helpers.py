"""Small workloads, right and wrong implementations for the tests of the CPU suite."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.core.correctness import Bounds
from benchmarks.core.names import OURS
from benchmarks.core.plain import frozen
from benchmarks.core.turns import in_turns
from benchmarks.cpu import workloads
from benchmarks.cpu.compare import Effort, Prepared, Row, compare
from benchmarks.cpu.executed import Products
from benchmarks.cpu.implementations import (
    Implementation,
    named,
)
from benchmarks.cpu.workloads import Workload
from hstl_fast.nn import ARME

REPOSITORY = Path(__file__).parents[3]


PROBES = Effort(seconds=0.0, fewest=2, most=2)


EAGER, OURSELVES = named("eager", OURS)


def small_workload(*implementations: Implementation, training: bool = False) -> Workload:
    torch.manual_seed(0)
    layer = ARME(4, 8, [3, 5])
    x, direction = torch.randn(1, 4, 5, 8, 6), torch.randn(1, 8, 5, 8, 6)
    return Workload(
        name="small",
        group="arme forward",
        preset="none",
        network=layer,
        inputs=[x, direction] if training else [x],
        step=workloads.forward_and_backward if training else workloads.forward,
        training=training,
        bounds={"float32": Bounds(1e-5, 1e-4 if training else None), "bfloat16": Bounds(1e-2)},
        products=Products(1000, 900, 120, None, 110),
        bytes=4000,
        implementations=implementations,
    )


def compared(workload: Workload) -> list[Row]:
    return compare(workload, PROBES, in_turns, Prepared())


class Spoilt(nn.Module):
    """A layer whose output passes through a function that spoils it."""

    def __init__(self, layer: nn.Module, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.spoil = spoil

    def forward(self, x: Tensor) -> Tensor:
        return self.spoil(self.layer(x))


def spoilt(spoil: Callable[[Tensor], Tensor]) -> Implementation:
    return Implementation("spoilt", lambda network, training: Spoilt(frozen(network, training), spoil))


class Broken(nn.Module):
    """A layer that raises after some calls."""

    def __init__(self, layer: nn.Module, calls: int) -> None:
        super().__init__()
        self.layer = layer
        self.left = calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of luck\n  in /some/secret/place.py")
        y: Tensor = self.layer(x)
        return y
