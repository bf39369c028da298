"""Fixtures for the tests of `accelerate`."""

import pytest
from torch import Tensor

from hstl_fast.drop_in.forward import FastForward
from tests.helpers.drop_in import network, silhouettes
from tests.helpers.opengait import OpenGaitHSTL


@pytest.fixture
def model() -> OpenGaitHSTL:
    """A narrow network in float64."""
    return network().double()


@pytest.fixture
def sils() -> Tensor:
    """Silhouettes of two clips in float64."""
    return silhouettes().double()


@pytest.fixture
def as_decided() -> None:
    """Ask for it where a call's size is to decide between the layer's own forward and ours."""


@pytest.fixture(autouse=True)
def _ours_for_every_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute by our operators, which are seldom worth it for maps as small as those of the tests."""
    if "as_decided" not in request.fixturenames:
        monkeypatch.setattr(FastForward, "pays", lambda self, x: True)
