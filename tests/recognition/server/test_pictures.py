"""The newest picture, compressed once for all who look at it."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hstl_fast.recognition.server import pictures as module
from hstl_fast.recognition.server.changes import Changes
from hstl_fast.recognition.server.pictures import Picture, Pictures
from tests.helpers.page import picture

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the pictures that were compressed."""
    numbers: list[int] = []

    def compress(number: int, image: Any) -> Picture:
        numbers.append(number)
        return Picture(number, b"jpeg")

    monkeypatch.setattr(module, "_compress", compress)
    return numbers


def test_a_viewer_who_comes_while_a_compression_ends_waits_for_nobody(compressed: list[int]) -> None:
    async def viewing() -> None:
        with ThreadPoolExecutor(1) as workers:
            pictures = Pictures(Changes(), workers)
            pictures.show(picture(0))
            first = asyncio.ensure_future(pictures.after(0))
            await asyncio.sleep(0)
            # Meanwhile the compression ends: the event loop learns of it just before the second viewer asks.
            time.sleep(0.2)
            second = asyncio.ensure_future(pictures.after(0))
            assert [found.number for found in await asyncio.gather(first, second) if found] == [1, 1]

    asyncio.run(viewing())
    assert compressed == [1]


def test_a_viewer_who_leaves_does_not_end_what_others_wait_for(compressed: list[int]) -> None:
    async def viewing() -> None:
        with ThreadPoolExecutor(1) as workers:
            pictures = Pictures(Changes(), workers)
            pictures.show(picture(0))
            leaving, staying = (asyncio.ensure_future(pictures.after(0)) for _ in range(2))
            await asyncio.sleep(0)
            leaving.cancel()
            found = await staying
            assert found is not None
            assert leaving.cancelled()

    asyncio.run(viewing())
    assert compressed == [1]


def test_a_picture_that_cannot_be_compressed_ends_its_viewer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("no memory")]

    def compress(number: int, image: Any) -> Picture:
        if failures:
            raise failures.pop()
        return Picture(number, b"jpeg")

    monkeypatch.setattr(module, "_compress", compress)

    async def viewing() -> None:
        with ThreadPoolExecutor(1) as workers:
            pictures = Pictures(Changes(), workers)
            pictures.show(picture(0))
            with pytest.raises(OSError, match="no memory"):
                await pictures.after(0)
            found = await pictures.after(0)
            assert found is not None

    asyncio.run(viewing())
