"""int8 is calibrated on silhouettes that are not measured, and all products of a network are in int8."""

from typing import Any

import numpy as np
import pytest

from benchmarks.core import silhouettes
from benchmarks.cpu import quantised, workloads
from benchmarks.cpu.implementations import named
from benchmarks.cpu.runtimes import Request, Runtime, Unavailable
from tests.helpers.networks import narrow_model


def test_ranges_are_calibrated_on_people_and_walkers() -> None:
    batches = list(quantised.calibration((2, 3, 64, 44)))
    assert len(batches) == 2 * quantised.BATCHES
    assert all(batch.shape == (2, 3, 64, 44) and batch.dtype == np.uint8 for batch in batches)
    assert len({batch.tobytes() for batch in batches}) == len(batches)


def test_what_is_measured_is_not_calibrated_on() -> None:
    assert workloads.WALKS <= quantised.FIRST_WALK <= len(silhouettes.all_walks()) - 2
    assert max(workloads.SEARCHED, len(workloads.MANY)) < quantised.FIRST_WALKER


@pytest.mark.slow
def test_openvino_computes_all_products_in_int8() -> None:
    """Weights that are a part of a parameter as well: left as they are, their products would be in float32."""
    workload = workloads.embedding("casia-b", (4,))._replace(network=narrow_model("casia-b", divisor=8))
    (implementation,) = named("openvino int8")
    try:
        network = implementation.prepare(workload.network, False)
    except Unavailable as why:
        pytest.skip(str(why))
    workload.step(network, workload.inputs)
    assert isinstance(network, Runtime)
    (engine,) = network.engines.values()
    assert isinstance(engine, Request)

    def fact(operation: Any, name: str) -> str:
        return str(operation.get_rt_info()[name].astype(str))

    operations = engine.model.get_runtime_model().get_ops()
    types = [fact(each, "runtimePrecision") for each in operations if fact(each, "layerType") == "Convolution"]
    assert len(types) >= 10
    assert set(types) <= {"i8", "u8"}
