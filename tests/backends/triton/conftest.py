"""Fixtures of the tests of Triton's kernels."""

from collections.abc import Iterator

import pytest
import torch

from hstl_fast import use_backend
from hstl_fast.ops import _dispatch
from tests.backends.cuda.conftest import emulated, installed

__all__ = ["emulated", "exact_kernels", "installed", "kernels"]
pytest.register_assert_rewrite("tests.backends.triton.helpers")


@pytest.fixture
def kernels(poisoned: None) -> str:
    """The name of the backend, with uninitialised memory poisoned."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reason = _dispatch.why_not("arme", "triton", device, torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return "triton"


@pytest.fixture
def exact_kernels(kernels: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the backend in force, with float32 that is multiplied as float32 and not as TF32."""
    from hstl_fast.backends.triton import arme

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if not torch.cuda.is_available():
        # The interpreter runs one program after another.
        monkeypatch.setattr(arme, "PROGRAMS", 8)
    with use_backend(kernels):
        yield
