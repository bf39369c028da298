"""Every operator at the sizes the published networks give it, on a 30-frame clip."""

from collections.abc import Callable

import pytest

from benchmarks.core.flops import Layer
from benchmarks.cpu import workloads
from benchmarks.cpu.workloads import Workload

QUICK_FORWARD = ("casia-b-stages.0.1", "casia-b-pools.1", "casia-b-fta", "casia-b-strips")
QUICK_BACKWARD = QUICK_FORWARD[:1]
GOALS = ("casia-b-strips",)


def _parameters(layers: list[tuple[str, Layer]], quick: tuple[str, ...]) -> list[object]:
    names = [f"{preset}-{layer.name}" for preset, layer in layers]
    marks = {name: [pytest.mark.quick] if name in quick else [] for name in names}
    for name in GOALS:
        marks[name].append(pytest.mark.goals)
    return [
        pytest.param(preset, layer, id=name, marks=marks[name])
        for name, (preset, layer) in zip(names, layers, strict=True)
    ]


@pytest.mark.parametrize(("preset", "layer"), _parameters(workloads.operator_layers(), QUICK_FORWARD))
def test_forward(preset: str, layer: Layer, measure: Callable[[Workload], None]) -> None:
    measure(workloads.operator_forward(preset, layer))


@pytest.mark.parametrize(("preset", "layer"), _parameters(workloads.operator_widths(), QUICK_BACKWARD))
def test_forward_and_backward(preset: str, layer: Layer, measure: Callable[[Workload], None]) -> None:
    measure(workloads.operator_training(preset, layer))
