"""Files that count as videos: their tracks are drawn walkers, so that no footage has to be cut."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.recognition import walks
from hstl_fast.silhouettes import SilhouetteError, Track
from tests.cli.helpers import walker

Film = Callable[..., Path]


def track(number: int, first: int, last: int, stem: str = "door", person: int | None = None) -> Track:
    """A track of the frames `first` to `last`, 25 a second, whose box moves by a pixel a frame."""
    frames = np.arange(first, last + 1)
    boxes = np.stack([300 + frames, np.full(len(frames), 120), np.full(len(frames), 40), np.full(len(frames), 110)], 1)
    silhouettes = walker(number if person is None else person, len(frames), start=first)
    return Track(f"{stem}-track{number:02d}", frames, boxes, silhouettes, 25.0)


def film(monkeypatch: pytest.MonkeyPatch) -> Film:
    """Make a function `(path, *tracks)` that writes a video; a track is (first frame, last frame, person)."""
    videos: dict[str, list[tuple[int, ...]]] = {}

    def extract(video: Path, **options: object) -> list[Track]:
        if not videos[str(video)]:
            raise SilhouetteError(f"{video}: no track of {options['min_frames']} frames or more (longest 0)")
        return [track(i, *span[:2], video.stem, *span[2:]) for i, span in enumerate(videos[str(video)], 1)]

    def write(path: Path, *tracks: tuple[int, ...]) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"RIFF\0\0\0\0AVI LIST")
        videos[str(path)] = list(tracks)
        return path

    monkeypatch.setattr(walks, "extract", extract)
    return write
