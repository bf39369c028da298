"""The correctness check finds what is wrong or missing."""

import torch

from benchmarks.core.correctness import Answer, Bounds, errors
from benchmarks.cpu import workloads
from benchmarks.cpu.compare import float64_reference


def test_the_gradient_that_is_sent_back_avoids_the_kink() -> None:
    workload = workloads.operator_training(*workloads.operator_widths()[0])
    y, direction = float64_reference(workload).outputs[0], workload.inputs[1]
    near, far = y.abs() < 5e-6 * y.abs().max(), y.abs() > 5e-5 * y.abs().max()
    assert near.any()
    assert not direction[near].any()
    assert (direction[far] != 0).float().mean() > 0.99


def test_missing_gradients_are_wrong() -> None:
    expected = Answer([torch.ones(3)], [torch.ones(2)])
    assert errors(Answer([torch.ones(3)]), expected).fault(Bounds(1.0, 1.0)) is not None
