"""The cache of the tables that the kernels on GPUs read: its memory, and the streams and devices it is asked on."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from hstl_fast import clear_caches
from hstl_fast._caches import cache_bytes
from hstl_fast.backends import tables
from tests.helpers import graphs

CPU = torch.device("cpu")
GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def cleared() -> Iterator[None]:
    tables.clear()
    yield
    tables.clear()
    tables._captured.clear()


def test_clearing_caches_drops_tables() -> None:
    name = "tables of the GPU kernels"
    assert cache_bytes()[name] == 0
    regions = tables.regions_table([3, 5], CPU)
    frames = tables.frames_table([4, 7], CPU)
    assert cache_bytes()[name] == regions.nbytes + sum(table.nbytes for table in frames) == 4 * (4 + 22 + 3 + 11)
    assert tables.regions_table([3, 5], CPU) is regions
    clear_caches()
    assert cache_bytes()[name] == 0
    assert torch.equal(tables.regions_table([3, 5], CPU), regions)
    assert tables.regions_table([3, 5], CPU) is not regions


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The current stream of every GPU; tables are on the CPU."""

    def on(values: np.ndarray, device: torch.device) -> Tensor:
        return torch.from_numpy(values)

    current = SimpleNamespace(cuda_stream=7)
    monkeypatch.setattr(tables, "_on", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    return current


def test_a_captured_stream_of_the_tensors_device_takes_what_is_there(
    stream: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[int] = []
    current = graphs.several_devices(monkeypatch, captured)
    regions = tables.regions_table([3, 5], GPU)
    stream.cuda_stream = 8
    captured.append(GPU.index)
    assert tables.regions_table([3, 5], GPU) is regions
    assert tables._captured == [regions]
    assert current == [0]
    clear_caches()
    assert tables._captured == [regions]


def test_a_captured_stream_for_which_there_is_no_table_is_an_error(
    stream: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs.several_devices(monkeypatch, [GPU.index])
    with pytest.raises(RuntimeError, match=r"captured on cuda:1, and tables for \[3, 5\] .* cannot be made"):
        tables.regions_table([3, 5], GPU)
    assert not tables._made
    assert not tables._captured


def test_a_capture_on_another_device_does_not_matter(stream: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[int] = []
    graphs.several_devices(monkeypatch, captured)
    regions = tables.regions_table([3, 5], GPU)
    stream.cuda_stream = 8
    captured.append(0)  # the current device
    assert tables.regions_table([3, 5], GPU) is not regions
    assert not tables._captured
