"""Segmentation faults: how much harm they do, and that they come and go."""

from itertools import pairwise

import numpy as np

from hstl_fast.silhouettes.walkers import raster, render
from hstl_fast.silhouettes.walkers.noise import spoil


def test_more_noise_does_more_harm() -> None:
    clean = render(8, view=54)
    harm = [np.abs(render(8, view=54, noise=noise).astype(int) - clean).mean() for noise in (0.1, 0.4, 0.7, 1.0)]
    assert all(less < more for less, more in pairwise([0.5, *harm]))
    assert harm[-1] < 60


def test_faults_come_and_go() -> None:
    """Outside a body that is not there, the only thing that can show is a blob, for five frames at a time."""
    empty = np.full((200, raster.ROWS, raster.COLUMNS), 100, np.float32)
    blobs = raster.coverage(spoil(empty, 1.0, (3, 4))) > 127
    present = blobs.any(axis=(1, 2))
    assert 0.2 < present.mean() < 0.9
    np.testing.assert_array_equal(blobs.reshape(40, 5, -1), blobs[::5].reshape(40, 1, -1).repeat(5, axis=1))
    assert len({blob.tobytes() for blob in blobs}) > 10


def test_holes_and_lost_feet_move() -> None:
    """Inside a body that is everywhere, the only thing that can show is what is missing."""
    everywhere = np.full((200, raster.ROWS, raster.COLUMNS), -100, np.float32)
    missing = raster.coverage(spoil(everywhere, 1.0, (3, 4))) < 128
    holes, feet = missing[:, :50], missing[:, 63].all(axis=1)
    assert 0.01 < holes.mean() < 0.1
    assert holes.any(axis=0).mean() > 5 * holes.mean()
    assert 0.1 < feet.mean() < 0.7
    assert not missing[:, :50].all(axis=2).any()
