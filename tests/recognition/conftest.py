"""Galleries for tests, in a file or on a server."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.network import Network
from hstl_fast.recognition import Clip
from tests.helpers.tiny import tiny_model

WalkMaker = Callable[..., Clip]


@pytest.fixture(scope="module")
def network() -> Network:
    """A network of few channels."""
    return Network(tiny_model(), "custom", "seed:0")


@pytest.fixture(scope="module")
def other_network() -> Network:
    """Another network of the same sizes."""
    return Network(tiny_model(1), "custom", "seed:1")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a gallery that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'people.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture(scope="session")
def walk() -> WalkMaker:
    """Make a clip of random silhouettes; the same number gives the same ones."""

    def made(number: int, source: str | None = None, frames: int = 6, fps: float | None = 25.0) -> Clip:
        silhouettes = np.random.default_rng(number).integers(0, 2, (frames, 64, 64), np.uint8) * 255
        return Clip(source or f"door-{number}.mp4-track01", silhouettes, fps)

    return made
