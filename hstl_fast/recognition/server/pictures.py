"""The newest picture as JPEG, compressed once however many look at it, and not at all while nobody does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.server.changes import Changes
from hstl_fast.silhouettes.extras import opencv

# Wider pictures are made smaller for the page.
WIDEST = 1280
_QUALITY = 80
# So long a picture is shown again where no other comes, so that browsers keep the connection.
_AGAIN = 5.0


class Picture(NamedTuple):
    """A picture.

    Attributes:
        number: The number of the picture, from 1.
        jpeg: The compressed picture.
    """

    number: int
    jpeg: bytes


class Pictures:
    """Holds the newest picture alone: whoever is slow finds a newer one, and nothing waits for him.

    Args:
        changes: Raised at every picture.
        workers: Where pictures are compressed.
    """

    def __init__(self, changes: Changes, workers: ThreadPoolExecutor) -> None:
        self.viewers = 0
        self._changes, self._workers = changes, workers
        self._newest: tuple[int, NDArray[np.uint8]] | None = None
        self._compressed: Picture | None = None
        self._compressing: asyncio.Future[Picture] | None = None

    def show(self, image: NDArray[np.uint8]) -> None:
        """Put a picture in the place of the last one; from any thread.

        Args:
            image: BGR `[H, W, 3]` uint8, which the caller no longer changes.
        """
        number = 1 if self._newest is None else self._newest[0] + 1
        self._newest = number, image

    async def after(self, number: int) -> Picture | None:
        """Wait for a picture that is newer than one.

        Args:
            number: The number of the picture that the caller has; 0 for none.

        Returns:
            The newest picture; the same once more where none came for some seconds; None where there is none yet or
            the page is closing.
        """
        await self._wait(number)
        newest, loop = self._newest, asyncio.get_running_loop()
        if newest is None or self._changes.closed:
            return None
        while self._compressed is None or self._compressed.number < newest[0]:
            if self._compressing is None:
                # Meanwhile a newer one may have come.
                self._compressing = loop.run_in_executor(self._workers, _compress, *(self._newest or newest))
            await self._keep(self._compressing)
        return self._compressed

    async def _wait(self, number: int) -> None:
        """Wait until there is a newer picture, no longer than some seconds without any change."""
        known = self._changes.count
        while not self._changes.closed and (self._newest is None or self._newest[0] <= number):
            count = await self._changes.after(known, _AGAIN)
            if count == known:
                return
            known = count

    async def _keep(self, compressing: asyncio.Future[Picture]) -> None:
        """Keep what a compression gives. Each viewer does: a callback would run after those whom its end wakes."""
        try:
            picture = await asyncio.shield(compressing)
        finally:
            # A viewer who leaves does not end what others wait for.
            if compressing.done() and self._compressing is compressing:
                self._compressing = None
        if self._compressed is None or self._compressed.number < picture.number:
            self._compressed = picture


def _compress(number: int, image: NDArray[np.uint8]) -> Picture:
    return Picture(number, compress(image))


def compress(image: NDArray[np.uint8], widest: int = WIDEST) -> bytes:
    """Compress a picture.

    Args:
        image: BGR `[H, W, 3]` uint8.
        widest: The greatest width of the JPEG, in pixels.

    Returns:
        The JPEG.
    """
    cv2 = opencv()
    height, width = image.shape[:2]
    if width > widest:
        size = (widest, max(1, round(height * widest / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    jpeg: Any = encoded
    return bytes(jpeg)
