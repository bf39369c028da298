"""Fixtures for the tests of `accelerate`."""

import pytest
from torch import Tensor

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
