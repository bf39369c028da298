"""The page's clock for tests."""

import pytest

from hstl_fast.recognition.server import streams


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the page look at its gallery, and tell its clients, ten times a second."""
    monkeypatch.setattr(streams, "_GALLERY", 0.1)
    monkeypatch.setattr(streams, "_LONGEST", 0.1)
