"""Embedding by graphs against embedding layer by layer: on a GPU, or in the interpreter with a simulated CUDA."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType

import pytest
import torch
from torch import Tensor

from hstl_fast import HSTL, HSTLConfig, use_backend
from hstl_fast.models import Stage, cuda_graphs
from tests.helpers import graphs
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import walkers

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
# A tile with which the interpreter has few programs to run, which is what takes its time.
LARGE = (4096, 16, 32, 4, 1)
LARGE_BLOCK = 1 << 15


@pytest.fixture(autouse=True)
def captured(kernels: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of graphs that were captured, in its only element; Triton is in force."""
    from hstl_fast.backends.triton import astp, fta, support, tiles

    if not ON_GPU:
        graphs.simulate(monkeypatch)
        for module, name in ((support, "BLOCK"), (fta, "BLOCK"), (astp, "MAXIMUM_BLOCK")):
            monkeypatch.setattr(module, name, LARGE_BLOCK)
    with use_backend(kernels), nullcontext() if ON_GPU else tiles.forced(tiles.Tile(*LARGE)):
        yield graphs.counted(monkeypatch)


def small(pool: bool) -> HSTL:
    torch.manual_seed(0)
    stages = (Stage((20, 12), (3,)), Stage((4, 28), (4,))) if pool else (Stage((40, 24), (2,)), Stage((64,), (3,)))
    return HSTL(HSTLConfig((2,), stages, pool=pool, strips=4, num_classes=3)).eval().to(DEVICE)


def layer_by_layer(model: HSTL, clips: list[Tensor]) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graphs, "MOST_FRAMES", 0)
        return model.embed(clips)


@pytest.mark.parametrize("pool", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["with pool", "without pool"])
def test_graphs_embed_as_layers_do(pool: bool, captured: list[int]) -> None:
    model = small(pool)
    for lens in ((4, 5), (1, 2)):
        clips = [walkers(t, seed) for seed, t in enumerate(lens)]
        found, expected = model.embed(clips), layer_by_layer(model, clips)
        assert distance(found, expected) <= rounding(torch.float32, NETWORK)  # products of other sizes add otherwise
    assert captured == [1]


@pytest.mark.slow
def test_graphs_embed_by_cuda_kernels_too(captured: list[int], installed: ModuleType) -> None:
    """ARME and ASTP in CUDA C++, emulated where there is no GPU, and FTA by Triton, read the same static tables."""
    model, clips = small(pool=True), [walkers(4), walkers(5, 1)]
    model.embed(clips)
    with use_backend("cuda"):
        for other in (clips, [walkers(1), walkers(2, 1)]):
            found, expected = model.embed(other), layer_by_layer(model, other)
            assert distance(found, expected) <= rounding(torch.float32, NETWORK)
    assert captured == [2]  # a graph stands for the kernels that it was captured with
