"""Small silhouette sequences on disk."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import walker


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for person, frames in enumerate((9, 1, 14)):
        np.save(folder / f"person-{person}.npy", walker(person, frames))
    return folder


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    folder = tmp_path / "probe"
    folder.mkdir()
    for person, frames in enumerate((7, 5)):
        np.save(folder / f"person-{person}.npy", walker(person, frames, start=4))
    return folder
