"""Fixtures of the operator tests."""

from collections.abc import Iterator

import pytest
import torch

from hstl_fast.ops import _dispatch


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill `torch.empty` with NaN, so that an element which a kernel does not write cannot look right."""
    monkeypatch.setenv("HSTL_FAST_MEMORY_CACHE", "0")  # whose blocks torch does not fill
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that computes on the CPU; one that cannot run here is skipped with its reason."""
    name: str = request.param
    reason = _dispatch.why_not("arme", name, "cpu", torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return name
