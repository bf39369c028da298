"""Sequences on disk, and the form of an error."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import SilhouetteError, read


def write_pngs(folder: Path, frames: NDArray[np.generic], mode: str | None = None) -> None:
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(frames):
        picture = image.fromarray(frame)
        (picture.convert(mode) if mode else picture).save(folder / f"{t}.png")


def fails(path: Path, *parts: str) -> None:
    with pytest.raises(SilhouetteError) as failure:
        read(path)
    message = str(failure.value)
    assert "\n" not in message
    for part in (path.name, "expected", "got", *parts):
        assert part in message, message
