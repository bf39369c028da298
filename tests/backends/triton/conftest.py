"""Fixtures of the tests of Triton's kernels."""

import pytest
import torch

from hstl_fast.ops import _dispatch


@pytest.fixture
def kernels(poisoned: None) -> str:
    """The name of the backend, uninitialised memory poisoned."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reason = _dispatch.why_not("arme", "triton", device, torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return "triton"
