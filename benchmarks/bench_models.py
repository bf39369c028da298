"""Whole networks: embedding one clip, embedding clips of several lengths, a step of training."""

from collections.abc import Callable

import pytest

from benchmarks import workloads
from benchmarks.workloads import Workload


@pytest.mark.parametrize("preset", workloads.OPERATOR_PRESETS)
def test_embedding(preset: str, measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding(preset))


def test_ragged_embedding(measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding("casia-b", workloads.LENGTHS))


def test_training_step(measure: Callable[[Workload], None]) -> None:
    measure(workloads.training_step("casia-b"))
