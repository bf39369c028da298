"""Random changes of silhouettes."""

import numpy as np
import pytest
import torch

from hstl_fast.data import Augmentation
from hstl_fast.silhouettes import walkers


@pytest.fixture(scope="module")
def walk() -> torch.Tensor:
    return torch.from_numpy(walkers.render(1, view=60, frames=6)[:, :, 10:54].copy())


def change(walk: torch.Tensor, seed: int = 0, **chances: float) -> torch.Tensor:
    return Augmentation(**chances)(walk, np.random.default_rng(seed))


def test_nothing_is_changed_by_default(walk: torch.Tensor) -> None:
    assert change(walk) is walk
    assert not Augmentation().changes


@pytest.mark.parametrize("kind", ["flip", "perspective", "affine", "erasing"])
def test_changes_follow_from_the_generator_and_keep_the_body(walk: torch.Tensor, kind: str) -> None:
    pytest.importorskip("kornia")
    before = torch.random.get_rng_state()
    changed = change(walk, **{kind: 1.0})
    assert changed.shape == walk.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, walk)
    assert torch.equal(changed, change(walk, **{kind: 1.0}))
    assert kind == "flip" or not torch.equal(changed, change(walk, seed=1, **{kind: 1.0}))
    assert 0.6 < changed.float().sum() / walk.float().sum() < 1.4
    assert torch.equal(before, torch.random.get_rng_state())


def test_generators_of_gpus_are_left_alone(walk: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kornia")
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    change(walk, affine=1.0)


def test_a_flip_mirrors_columns(walk: torch.Tensor) -> None:
    pytest.importorskip("kornia")
    assert torch.equal(change(walk, flip=1.0), walk.flip(2))


@pytest.mark.parametrize("kind", ["flip", "perspective", "affine", "erasing"])
def test_all_frames_change_alike(walk: torch.Tensor, kind: str) -> None:
    pytest.importorskip("kornia")
    same = walk[:1].expand(5, -1, -1)
    changed = change(same, **{kind: 1.0})
    assert torch.equal(changed, changed[:1].expand_as(changed))


def test_a_probability_is_kept(walk: torch.Tensor) -> None:
    pytest.importorskip("kornia")
    flipped = sum(not torch.equal(change(walk[:1], seed, flip=0.3), walk[:1]) for seed in range(100))
    assert 12 <= flipped <= 50  # 30 expected, standard deviation 4.6


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_probabilities_that_cannot_be(value: float) -> None:
    with pytest.raises(ValueError, match=r"perspective must be a probability in 0\.\.1"):
        Augmentation(perspective=value)
