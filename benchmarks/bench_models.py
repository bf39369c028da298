"""Whole networks: latency, throughput, scaling, a step of training. Workloads on the same network stand together, so
that what a rival compiles for a shape is compiled once."""

from collections.abc import Callable

import pytest
import torch

from benchmarks import workloads
from benchmarks.rivals import SCALING
from benchmarks.workloads import FRAMES, Scaling, Workload

LENGTHS = (10, 30, 60, 120)
BATCHES = (1, 2, 4, 8)


def _threads() -> list[int]:
    """All of torch's, for which networks are prepared already, then ..., 4, 2, 1."""
    most = torch.get_num_threads()
    return sorted({most, *(2**i for i in range(most.bit_length()))}, reverse=True)


@pytest.mark.parametrize("preset", ["oumvlp", "gait3d", pytest.param("casia-b", marks=pytest.mark.quick)])
def test_latency(preset: str, measure: Callable[[Workload], None]) -> None:
    workload = workloads.embedding(preset)
    measure(workload._replace(memory=("embedding", preset, str(FRAMES))) if preset == "casia-b" else workload)


def test_throughput(measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding("casia-b", (FRAMES,) * max(BATCHES)))


def test_ragged_throughput(measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding("casia-b", workloads.RAGGED[0]))


def test_long_ragged_throughput(measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding("casia-b", workloads.RAGGED[1])._replace(rivals=SCALING))


def _scaling(workload: Workload, axis: str, value: int) -> Workload:
    return workload._replace(group="scaling", scaling=Scaling(axis, value), rivals=SCALING)


@pytest.mark.parametrize("frames", LENGTHS)
def test_scaling_with_frames(frames: int, measure: Callable[[Workload], None]) -> None:
    workload = _scaling(workloads.embedding("casia-b", (frames,)), "frames", frames)
    longest = frames == max(LENGTHS)
    measure(workload._replace(memory=("embedding", "casia-b", str(frames))) if longest else workload)


@pytest.mark.parametrize("batch", BATCHES)
def test_scaling_with_batch(batch: int, measure: Callable[[Workload], None]) -> None:
    measure(_scaling(workloads.embedding("casia-b", (FRAMES,) * batch), "batch", batch))


@pytest.mark.parametrize("threads", _threads())
def test_scaling_with_threads(threads: int, measure: Callable[[Workload], None]) -> None:
    workload = _scaling(workloads.embedding("casia-b"), "threads", threads)
    measure(workload._replace(name=f"{workload.name}, threads: {threads}", threads=threads))


@pytest.mark.parametrize("preset", ["casia-b"])
def test_training_step(preset: str, measure: Callable[[Workload], None]) -> None:
    measure(workloads.training_step(preset)._replace(memory=("training_step", preset)))
