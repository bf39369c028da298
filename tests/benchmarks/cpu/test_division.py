"""Our time is divided among all layers of the network that users run."""

import json
from collections.abc import Sequence

import pytest
from torch import Tensor, nn

from benchmarks.core import flops
from benchmarks.core.correctness import Answer
from benchmarks.cpu import division, executed, workloads
from benchmarks.cpu.compare import Prepared
from hstl_fast import HSTL
from hstl_fast.models.cpu_plan import Plan
from hstl_fast.models.eligibility import is_made_of_own_layers
from tests.helpers.networks import narrow_model


def test_what_is_timed_is_what_users_run() -> None:
    """The network still knows its layers for its own, which is when it records them and leaves the background out."""
    seen: list[bool] = []
    execute = Plan.execute

    def step(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
        assert isinstance(network, HSTL)
        seen.append(is_made_of_own_layers(network))
        assert Plan.execute is not execute
        return Answer([network.embed(inputs)])

    workload = workloads.embedding("casia-b", (3,))._replace(network=narrow_model("casia-b", divisor=8), step=step)
    division.divide(workload, Prepared(), rounds=1)
    assert seen == [True, True]
    assert Plan.execute is execute


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_our_time_is_divided_among_all_layers(preset: str) -> None:
    model = narrow_model(preset)
    workload = workloads.embedding(preset, (6,))._replace(network=model, divided=True)
    prepared = Prepared()
    found = division.divide(workload, prepared, rounds=2)
    layers = flops.layers(model.config, 6)
    assert set(found.parts) == {*division.part_names(model, 6).values(), division.REST}
    assert len(found.parts) == sum(layer.kind == "arme" for layer in layers) + 5
    assert all(seconds > 0 for seconds in found.parts.values())
    assert sum(found.parts.values()) == pytest.approx(found.total)  # medians of two rounds are means
    supports = executed.supports(model.config, workload.inputs[0])
    flop = sum(2 * executed.of_layer(layer, supports.get(layer.name)).executed for layer in layers)
    assert sum(count or 0 for count in found.executed_flop.values()) == flop
    assert found.executed_flop["strips"] is None
    parts = json.loads(json.dumps(found.described()))["parts"]
    assert [part["name"] for part in parts] == list(found.parts)
    assert "stage 2, 8-16" in found.parts
