"""The background model, and the frames that it learns from."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
from hstl_fast.silhouettes.video.foreground import BackgroundModel, training_indices


def test_background_model_tells_bodies_from_shadows_specks_and_lines() -> None:
    rng = np.random.default_rng(0)
    wall = rng.integers(100, 200, (80, 120, 3))

    def shot() -> NDArray[np.uint8]:
        return (wall + rng.normal(0, 2, wall.shape)).clip(0, 255).astype(np.uint8)

    model = BackgroundModel([shot() for _ in range(40)])
    frame = shot()
    frame[20:60, 20:40] = 10
    frame[20:60, 60:80] = (frame[20:60, 60:80] * 0.7).astype(np.uint8)
    frame[70, 10:110] = 10
    frame[5, 5] = 10
    mask = model.mask(frame)
    assert mask[22:58, 22:38].all()
    mask[19:61, 19:41] = False
    assert mask.mean() < 0.002
    np.testing.assert_array_equal(model.mask(frame), model.mask(frame))


def test_training_frames_are_spread_and_bounded() -> None:
    indices = training_indices(10_000, 1000)
    assert (indices[0], indices[-1], len(indices)) == (0, 9_999, 200)
    assert len(training_indices(10_000, 100 * 2**20)) == 5
    assert training_indices(7, 1000).tolist() == list(range(7))
    assert len(training_indices(1, 2**40)) == 1
