"""Fixtures of the models' tests."""

import pytest
import torch

from hstl_fast.ops import _dispatch


@pytest.fixture
def native() -> str:
    """The native CPU backend; skipped with its reason where there is no binary."""
    reason = _dispatch.why_not("arme", "cpu", "cpu", torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return "cpu"
