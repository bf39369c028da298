"""Whole networks: latency, throughput, scaling, a training step.

Workloads on the same network stand together, so that what is compiled for a shape is compiled once. What is embedded
from people's and from walkers' silhouettes is measured of the strongest implementations only the second time.
"""

from collections.abc import Callable

import pytest
import torch

from benchmarks.core.names import PEOPLE, WALKERS
from benchmarks.cpu import workloads
from benchmarks.cpu.implementations import IMPLEMENTATIONS, SCALING, SEARCHING, STRONGEST, TRAINING
from benchmarks.cpu.workloads import FRAMES, Scaling, Workload

LENGTHS = (10, 30, 60, 120)
BATCHES = (1, 2, 4)
LARGEST_BATCH = 8
# Presets whose time is divided among the layers.
DIVIDED = ("casia-b", "gait3d")


def _threads() -> list[int]:
    """All of torch's threads, for which networks are prepared already, then ..., 4, 2, 1."""
    most = torch.get_num_threads()
    return sorted({most, *(2**i for i in range(most.bit_length()))}, reverse=True)


def _latency(preset: str, source: str) -> object:
    quick = [pytest.mark.quick] if (preset, source) == ("casia-b", PEOPLE) else []
    return pytest.param(preset, source, marks=quick)


@pytest.mark.goals
@pytest.mark.parametrize(
    ("preset", "source"), [_latency(p, s) for p in ("oumvlp", "gait3d", "casia-b") for s in workloads.SOURCES]
)
def test_latency(preset: str, source: str, measure: Callable[[Workload], None]) -> None:
    workload = workloads.embedding(preset, source=source)._replace(divided=source == PEOPLE and preset in DIVIDED)
    if preset != "casia-b":
        measure(workload if source == PEOPLE else workload._replace(implementations=STRONGEST))
    elif source == WALKERS:
        measure(workload._replace(implementations=SEARCHING, search=workloads.search()))
    else:
        memory = ("embedding", preset, source, str(FRAMES))
        measure(workload._replace(implementations=IMPLEMENTATIONS, memory=memory))


def test_throughput(measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding("casia-b", (FRAMES,) * LARGEST_BATCH)._replace(implementations=STRONGEST))


def test_ragged_throughput(measure: Callable[[Workload], None]) -> None:
    measure(workloads.embedding("casia-b", workloads.RAGGED)._replace(implementations=STRONGEST))


def _scaling(workload: Workload, axis: str, value: int) -> Workload:
    return workload._replace(group="scaling", scaling=Scaling(axis, value), implementations=SCALING)


@pytest.mark.parametrize("frames", LENGTHS)
def test_scaling_with_frames(frames: int, measure: Callable[[Workload], None]) -> None:
    measure(_scaling(workloads.embedding("casia-b", (frames,)), "frames", frames))


@pytest.mark.parametrize("batch", BATCHES)
def test_scaling_with_batch(batch: int, measure: Callable[[Workload], None]) -> None:
    measure(_scaling(workloads.embedding("casia-b", (FRAMES,) * batch), "batch", batch))


@pytest.mark.goals
@pytest.mark.parametrize("source", workloads.SOURCES)
def test_gallery(source: str, measure: Callable[[Workload], None]) -> None:
    measure(workloads.gallery("casia-b", source))


@pytest.mark.parametrize("threads", _threads())
def test_scaling_with_threads(threads: int, measure: Callable[[Workload], None]) -> None:
    workload = _scaling(workloads.embedding("casia-b"), "threads", threads)
    measure(workload._replace(name=f"{workload.name}, threads: {threads}", threads=threads))


@pytest.mark.goals
@pytest.mark.skipif(torch.get_num_threads() < 2, reason="needs two threads")
@pytest.mark.parametrize("source", workloads.SOURCES)
def test_two_threads(source: str, measure: Callable[[Workload], None]) -> None:
    measure(workloads.two_threads("casia-b", source))


@pytest.mark.goals
@pytest.mark.parametrize("source", workloads.SOURCES)
def test_training_step(source: str, measure: Callable[[Workload], None]) -> None:
    workload = workloads.training_step("casia-b", source)
    if source == WALKERS:
        measure(workload._replace(implementations=TRAINING))
        return
    measure(workload._replace(memory=("training_step", "casia-b", source)))
