"""Every operator at the sizes the published networks give it, on a 30-frame clip."""

from collections.abc import Callable

import pytest

from benchmarks.core.flops import Layer
from benchmarks.cpu import workloads
from benchmarks.cpu.workloads import Workload

QUICK_FORWARD = ("casia-b-stages.0.1", "casia-b-pools.1", "casia-b-fta", "casia-b-strips")
QUICK_BACKWARD = QUICK_FORWARD[:1]
GOALS_FORWARD = ("casia-b-strips",)


def _parameters(layers: list[tuple[str, Layer]], quick: tuple[str, ...], goals: tuple[str, ...] = ()) -> list[object]:
    marked = ((pytest.mark.quick, quick), (pytest.mark.goals, goals))
    names = [f"{preset}-{layer.name}" for preset, layer in layers]
    return [
        pytest.param(preset, layer, id=name, marks=[mark for mark, chosen in marked if name in chosen])
        for name, (preset, layer) in zip(names, layers, strict=True)
    ]


@pytest.mark.parametrize(("preset", "layer"), _parameters(workloads.operator_layers(), QUICK_FORWARD, GOALS_FORWARD))
def test_forward(preset: str, layer: Layer, measure: Callable[[Workload], None]) -> None:
    measure(workloads.operator_forward(preset, layer))


@pytest.mark.parametrize(("preset", "layer"), _parameters(workloads.operator_widths(), QUICK_BACKWARD))
def test_forward_and_backward(preset: str, layer: Layer, measure: Callable[[Workload], None]) -> None:
    measure(workloads.operator_training(preset, layer))
