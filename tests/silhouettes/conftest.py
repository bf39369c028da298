"""A small sequence."""

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def sequence() -> NDArray[np.uint8]:
    frames = np.zeros((5, 64, 64), np.uint8)
    frames[:, :, 22:42] = np.random.default_rng(0).integers(0, 256, (5, 64, 20))
    return frames
