"""The gait-energy image: the mean of the silhouettes, pixel by pixel."""

import numpy as np
import pytest

from hstl_fast.silhouettes.energy import gait_energy_image


def test_is_the_mean_of_the_middle_columns() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (7, 64, 64)).astype(np.uint8)
    found = gait_energy_image(clip)
    assert (found.dtype, found.shape) == (np.float32, (1, 64 * 44))
    # A float32 sum of 7 bytes is exact; the two divisions round once each.
    np.testing.assert_allclose(found[0].reshape(64, 44), clip[:, :, 10:54].mean(0) / 255, rtol=3e-7)
    assert np.array_equal(found, gait_energy_image(clip[:, :, 10:54]))


@pytest.mark.parametrize("shape", [(0, 64, 64), (64, 64), (3, 64, 50), (3, 44, 64)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"silhouettes must be \[T, 64, 64\] or \[T, 64, 44\]; got \["):
        gait_energy_image(np.zeros(shape, np.uint8))
