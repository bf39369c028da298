"""A source of rendered frames, and people who walk in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.live.events import Frame
from tests.silhouettes.video.scenes import Scene, walker

FPS = 25.0
# Ann walks to the right above, Ben to the left below; Ann comes back after she has left the picture.
SIZE = (150, 200)
ANN, BEN = 3, 8


def street() -> Scene:
    """Ann and Ben walk by, and Ann a second time; nobody is there for the first two seconds."""
    first = walker(-20, 72, 60, identity=ANN, speed=3.4, first=52)
    other = walker(220, 142, 60, identity=BEN, speed=3.4, direction=-1, first=60)
    again = walker(-20, 72, 60, identity=ANN, speed=3.4, first=150)
    return Scene([first, other, again], 225, SIZE)


class Played:
    """Frames as a source gives them.

    Args:
        images: The frames.
        is_live: Whether they count as those of a camera.
        seconds: Gives the time of a frame by its number.
    """

    fps: float | None = FPS
    dropped = reconnections = 0

    def __init__(
        self,
        images: Iterable[NDArray[np.uint8]],
        is_live: bool = False,
        seconds: Callable[[int], float] = lambda number: number / FPS,
    ) -> None:
        self.name, self.is_live = "street.mp4", is_live
        self._images, self._seconds = images, seconds
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for number, image in enumerate(self._images):
            if self.closed.is_set():
                return
            yield Frame(number, self._seconds(number), time.monotonic(), image)

    def close(self) -> None:
        self.closed.set()
