"""What a network sees of a clip."""

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]


Floats = NDArray[np.float64]


def cropped(clip: Clip) -> Clip:
    """The 64 x 44 that a network sees."""
    return clip[:, :, 10:54]
