"""FLOPs that torch's counter sees: those of the dense network, however the layers are computed."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hstl_fast import HSTL, use_backend
from hstl_fast.ops import _flops
from tests.helpers.networks import narrow_model, walkers


def counted(step: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def dense_convolutions(model: HSTL, frames: int) -> int:
    layers = model.config.convolutions(frames)
    return sum(54 * layer.c_in * layer.c_out * layer.frames * sum(layer.split) * layer.columns for layer in layers)


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_an_embedding_counts_as_the_reference_does(preset: str, native: str) -> None:
    model, clip = narrow_model(preset).eval(), walkers(6)
    with use_backend("reference"):
        expected = counted(lambda: model.embed([clip]))
    with use_backend(native):
        found = counted(lambda: model.embed([clip]))
    assert found == expected > dense_convolutions(model, 6)


def test_a_training_step_counts_three_convolutions_a_layer(native: str) -> None:
    """The first layer's input has no gradient."""
    model = narrow_model("casia-b", divisor=16)
    with use_backend(native):
        found = counted(lambda: model(walkers(6)[None]).logits.sum().backward())
    first = model.config.convolutions(6)[0]
    of_first = 54 * first.c_in * first.c_out * first.frames * sum(first.split) * first.columns
    convolutions = 3 * dense_convolutions(model, 6) - of_first
    assert convolutions < found < 1.05 * convolutions


@pytest.mark.slow
def test_importing_the_package_does_not_import_the_counter() -> None:
    code = f"import sys, hstl_fast, torch; assert {_flops._COUNTER!r} not in sys.modules; "
    code += f"import {_flops._COUNTER} as counter; assert torch.ops.hstl_fast.arme_forward in counter.flop_registry"
    code += "; import importlib; importlib.reload(counter); "
    code += "assert torch.ops.hstl_fast.arme_forward in counter.flop_registry"
    code += f"; assert importlib.util.find_spec({_flops._COUNTER!r}).loader.get_source({_flops._COUNTER!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch.ops.hstl_fast.arme_forward in sys.modules[_flops._COUNTER].flop_registry  # type: ignore[attr-defined]
