"""Rendered street scenes as video files: walkers of two legs and two arms in front of a textured wall, with camera
noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HEIGHT, WIDTH = 240, 480


@dataclass(frozen=True)
class Walker:
    """Walks from column `start` at `speed` columns a frame, feet on row `ground`, visible from frame `first` to
    `last`."""

    start: float
    speed: float
    ground: int = 200
    height: int = 100
    first: int = 0
    last: int = 10**6
    colour: tuple[int, int, int] = (20, 20, 30)

    def column(self, frame: int) -> float:
        return self.start + self.speed * frame


def write_video(path: Path, walkers: Sequence[Walker], frames: int, codec: str = "MJPG") -> Path:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (WIDTH, HEIGHT))
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(90, 220, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    for t in range(frames):
        image = wall.copy()
        for walker in walkers:
            if walker.first <= t <= walker.last:
                _draw(cv2, image, walker, t)
        noise = rng.normal(0, 2, image.shape)
        writer.write((image + noise).clip(0, 255).astype(np.uint8))
    writer.release()
    return path


def _draw(cv2: Any, image: NDArray[np.uint8], walker: Walker, t: int) -> None:
    h, swing = walker.height, 0.16 * np.sin(2 * np.pi * t / 11)

    def at(across: float, up: float) -> tuple[int, int]:
        return round(walker.column(t) + across * h), round(walker.ground - up * h)

    cv2.circle(image, at(0, 0.92), round(0.075 * h), walker.colour, -1)
    cv2.ellipse(image, at(0, 0.67), (round(0.11 * h), round(0.2 * h)), 0, 0, 360, walker.colour, -1)
    for side in (-1, 1):
        cv2.line(image, at(0, 0.5), at(side * swing, 0.03), walker.colour, max(2, round(0.09 * h)))
        cv2.line(image, at(0, 0.8), at(-side * swing, 0.45), walker.colour, max(2, round(0.05 * h)))
