"""The division of our embedding time among the layers, measured around each layer's native calls."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.core import flops
from benchmarks.core.flops import Layer
from benchmarks.core.interleaving import timed, without_garbage_collection
from benchmarks.core.names import OURS
from benchmarks.cpu import executed
from benchmarks.cpu.compare import Prepared
from benchmarks.cpu.implementations import named
from benchmarks.cpu.workloads import Workload
from hstl_fast import HSTL
from hstl_fast.models.cpu_plan import Plan, layers_of

ROUNDS = 15
POOLS = "ASTP"
# Time outside all layers: Python, the support, 2x2 maxima by themselves, batch norm, copies. A convolution's time
# includes the frame maximum and the 2x2 maximum where it finds them while it writes its map.
REST = "everything else"


class Division(NamedTuple):
    """Seconds of one step and of its parts in the order of computation, each the median of all rounds.

    executed_flop: two for every product that a part executes, None where it has none.
    """

    total: float
    parts: dict[str, float]
    executed_flop: dict[str, int | None]
    rounds: int

    def described(self) -> dict[str, Any]:
        """The division as plain values for the JSON file."""
        parts = [{"name": n, "seconds": s, "executed_flop": self.executed_flop.get(n)} for n, s in self.parts.items()]
        return {"total": self.total, "rounds": self.rounds, "parts": parts}


def divide(workload: Workload, prepared: Prepared, rounds: int = ROUNDS) -> Division:
    """Run the workload, an embedding of one clip by `HSTL`, so many times on our network and divide its time."""
    (ours,) = named(OURS)
    network = prepared.network(ours, workload)
    assert isinstance(network, HSTL)
    names = part_names(network, len(workload.inputs[0]))
    spent: dict[str, float] = {}
    series: dict[str, list[float]] = {name: [] for name in (*dict.fromkeys(names.values()), REST)}
    totals: list[float] = []
    with ours.context(), _stopwatch(network, names, spent), without_garbage_collection():
        workload.step(network, workload.inputs)
        for _ in range(rounds):
            spent.clear()
            totals.append(timed(functools.partial(workload.step, network, workload.inputs)))
            spent[REST] = totals[-1] - sum(spent.values())
            for name, seconds in series.items():
                seconds.append(spent.get(name, 0.0))
    parts = {name: median(seconds) for name, seconds in series.items()}
    return Division(median(totals), parts, _executed(workload, network, names), rounds)


def part_names(network: HSTL, frames: int) -> dict[str, str]:
    """The part that each timed module belongs to: every convolution is one, the ASTP of all levels together are one."""
    return {layer.name: _part(layer) for layer in flops.layers(network.config, frames)}


def _part(layer: Layer) -> str:
    if layer.kind != "arme":
        return {"astp": POOLS, "fta": "FTA", "strip_pool": "strips", "head": "head"}[layer.kind]
    block, *place = layer.name.split(".")
    stage = 1 if block == "stem" else int(place[0]) + 2
    return f"stage {stage}, {layer.c_in}-{layer.c_out}"


def _executed(workload: Workload, network: HSTL, names: dict[str, str]) -> dict[str, int | None]:
    supports = executed.supports(network.config, workload.inputs[0])
    found: dict[str, int | None] = {}
    for layer in flops.layers(network.config, len(workload.inputs[0])):
        count = 2 * executed.of_layer(layer, supports.get(layer.name)).executed
        found[names[layer.name]] = (found.get(names[layer.name]) or 0) + count or None
    return found


@contextmanager
def _stopwatch(network: HSTL, names: dict[str, str], spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds of every named module of the network to its part.

    Module hooks would change what is measured: a network with hooks on its layers records no execution plan and
    computes whole maps, because hooks may look at them.
    """
    parts = {network.get_submodule(module): name for module, name in names.items()}
    layers = layers_of(network)

    def timed(plan: Plan, bases: list[int]) -> None:
        for layer, seconds in zip(plan.layers, plan.program.run_timed(bases)):
            part = None if layer is None else parts.get(layers[layer])
            if part is not None:
                spent[part] = spent.get(part, 0.0) + seconds

    with mock.patch.object(Plan, "execute", timed):
        yield
