"""Fixtures of these tests."""

import pytest


@pytest.fixture(autouse=True)
def quiet(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
