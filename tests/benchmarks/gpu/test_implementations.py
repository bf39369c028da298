"""Implementations are found, keep their weights, and compute in their own arithmetic."""

import pytest
import torch

from benchmarks.gpu import (
    compare,
    implementations,
    numerics,
    suite,
)
from benchmarks.gpu.implementations import Implementation
from benchmarks.gpu.numerics import Numerics
from hstl_fast import backends
from hstl_fast.ops import _dispatch
from tests.benchmarks.gpu.helpers import CPU, FLOAT32
from tests.gpu import operators


def test_kernels_added_later_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _dispatch.why_not

    def with_triton(operator: str, backend: str, *arguments: object, **options: object) -> str | None:
        return None if backend == "triton" else before(operator, backend, *arguments, **options)

    gpu = torch.device("cuda")
    assert implementations.backends(gpu, torch.bfloat16) == ["reference"]
    monkeypatch.setattr(_dispatch, "why_not", with_triton)
    assert implementations.backends(gpu, torch.bfloat16) == ["reference", "triton"]
    names = [implementation.name for implementation in implementations.implementations(gpu)]
    assert "hstl_fast triton, bfloat16 autocast" in names
    assert "hstl_fast triton, float16 autocast" in names
    assert "hstl_fast reference, bfloat16 autocast" not in names, "it is what auto picks"
    monkeypatch.setattr(backends, "UNVERIFIED", frozenset())
    names = [implementation.name for implementation in implementations.implementations(gpu)]
    assert "hstl_fast reference, bfloat16 autocast" in names
    assert "hstl_fast triton, bfloat16 autocast" not in names, "it is what auto picks"
    case = next(case for case in operators.cases(tiny=True) if case.operator == "astp")
    keys = [key for key, _, _ in operators.keys(case, gpu)]
    assert "astp 6-10 [5, 1, 3] 14x9x7 | tf32 | triton" in keys


def test_an_operator_is_measured_on_backends_that_compute_it_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(operator: str, backend: str, *arguments: object, **options: object) -> str | None:
        can = backend in ("reference", "triton") or (backend == "cuda" and operator != "fta")
        return None if can else "not here"

    gpu = torch.device("cuda")
    monkeypatch.setattr(_dispatch, "why_not", both)
    assert implementations.with_kernels(gpu) == ["cuda", "triton"]
    found = {}
    for entry in suite.entries(tiny=True):
        ours = [i.backend for i in compare.taking_part(entry, gpu) if i.numerics == implementations.FLOAT16]
        found[entry.group] = {backend for backend in ours if backend is not None}
    assert found["arme forward"] == found["astp forward"] == {"auto", "cuda", "triton"}
    assert found["fta forward"] == {"auto", "triton"}
    assert found["training step"] == found["embedding"] == {"auto", "cuda", "triton"}
    monkeypatch.setattr(backends, "UNVERIFIED", frozenset())
    layer = next(entry for entry in suite.entries(tiny=True) if entry.group == "fta forward and backward")
    ours = {i.backend for i in compare.taking_part(layer, gpu) if i.numerics == implementations.FLOAT16}
    assert ours == {None, "auto", "triton", "reference"}, "the reference stands beside the kernels"
    resolved = implementations.resolved("cuda", gpu, torch.bfloat16)
    assert resolved == {"arme": "cuda", "astp": "cuda", "fta": "triton"}


@pytest.mark.parametrize("mode", numerics.checked(torch.device("cuda")), ids=str)
def test_switches_are_put_back(mode: Numerics) -> None:
    before = numerics._switches()
    with mode._replace(benchmark=True, deterministic=True).on(CPU):
        assert numerics._switches() == (mode.tf32, mode.tf32, True, True)
        assert torch.is_autocast_enabled("cpu") == mode.autocast
    assert numerics._switches() == before


def test_channels_last_weights_are_the_same_weights() -> None:
    workload = next(w for w in suite.entries(tiny=True) if w.group == "arme forward")
    built = workload.build(CPU)
    plain, last = (
        Implementation("a", FLOAT32, layout).prepare(built.network, False)
        for layout in (torch.contiguous_format, torch.channels_last_3d)
    )
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.equal(a, b)
        assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in b)
