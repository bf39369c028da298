"""The background model, and the frames that it learns from."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
from hstl_fast.silhouettes.video.foreground import Background, BackgroundModel, Learnt, Sampler, training_frames


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


def sampled(num_frames: int, limit: int) -> list[int]:
    """Indices that a sampler holds after so many frames, each of which says its index."""
    sampler = Sampler(limit)
    for i in range(num_frames):
        if sampler.wants(i):
            sampler.add(i, np.full((2, 2, 3), i % 256, np.uint8))
    return [int(picture[0, 0, 0]) for picture in sampler.learnt().samples]


def test_training_frames_are_spread_and_bounded() -> None:
    assert sampled(7, 200) == list(range(7))
    assert sampled(1, 2) == [0]
    assert sampled(250, 20) == list(range(0, 250, 16))
    for count in (20, 21, 39, 200):
        held = sampled(count, 20)
        assert 10 <= len(held) <= 20
        assert held[0] == 0
        assert len(set(np.diff(held))) == 1


def test_some_frames_are_held_where_every_other_one_is_black() -> None:
    sampler = Sampler(20)
    for i in range(1, 200, 2):
        if sampler.wants(i):
            sampler.add(i, np.zeros((2, 2, 3), np.uint8))
    assert 10 <= len(sampler.learnt().samples) <= 20


@pytest.mark.slow
def test_trembling_footage_with_a_flash_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    wall = np.kron(rng.integers(0, 255, (26, 34, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
    samples = [wall[y : y + 240, x : x + 320] for y, x in rng.integers(0, 7, (120, 2))]
    samples[60] = np.full_like(samples[60], 255)
    background = Background(Learnt(samples, []), 48)
    assert background.camera.trembles
    assert background.foreground(samples[0]).mask.mean() < 0.02


def test_training_frames_fit_into_memory() -> None:
    assert (training_frames(1000), training_frames(100 * 2**20), training_frames(2**40)) == (200, 5, 2)
