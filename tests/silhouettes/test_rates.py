"""The frame rate stored beside silhouettes."""

import math
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.silhouettes.rates import stored_rate

SILHOUETTES = np.zeros((2, 64, 64), np.uint8)


@pytest.mark.parametrize("rate", [25, np.float64(12.5), np.float32(30)])
def test_the_rate_is_found(tmp_path: Path, rate: float) -> None:
    np.savez(tmp_path / "walk.npz", silhouettes=SILHOUETTES, fps=rate)
    assert stored_rate(tmp_path / "walk.npz") == rate


@pytest.mark.parametrize("rate", [math.nan, math.inf, 0, -25, "fast", [25, 25]])
def test_impossible_rates_are_unknown(tmp_path: Path, rate: object) -> None:
    np.savez(tmp_path / "walk.npz", silhouettes=SILHOUETTES, fps=np.array(rate))
    assert math.isnan(stored_rate(tmp_path / "walk.npz"))


def test_other_files_have_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "walk.npz", silhouettes=SILHOUETTES)
    np.save(tmp_path / "walk.npy", SILHOUETTES)
    (tmp_path / "broken.npz").write_bytes(b"nonsense")
    for path in (tmp_path / "walk.npz", tmp_path / "walk.npy", tmp_path / "broken.npz", tmp_path / "none.npz", None):
        assert math.isnan(stored_rate(path))
