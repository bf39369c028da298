"""The page of a gallery, and the page of a live recognition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from hstl_fast.recognition.live.events import Source, Update
from hstl_fast.recognition.server.address import DEFAULT_PORT, LOOPBACK, Address, bind, check_token
from hstl_fast.recognition.server.changes import Changes
from hstl_fast.recognition.server.guard import Guard
from hstl_fast.recognition.server.people import Keeping, Known, People, Tracks
from hstl_fast.recognition.server.pictures import Pictures
from hstl_fast.recognition.server.routes import Routes
from hstl_fast.recognition.server.serving import ServingThread, check_packages
from hstl_fast.recognition.server.state import LiveState


class GalleryPage:
    """A web page that lists, renames and removes the people of a gallery.

    It is served from the beginning, in threads of its own, until `close` or the end of the context.

    Args:
        gallery: The `Gallery`, which the caller closes after the page.
        host: What to listen at: this machine alone (127.0.0.1), or a name or a number by which others reach it, for
            whom a token is needed.
        port: The port; 0 takes any that is free.
        token: What requests have to bring along; None makes one where `host` is not this machine alone.

    Attributes:
        address: Where the page is, and its token.

    Raises:
        ImportError: Starlette or uvicorn is missing.
        ValueError: The port or the token is none.
        OSError: The host is not known, or the port is taken.
    """

    def __init__(
        self, gallery: Known, *, host: str = LOOPBACK, port: int = DEFAULT_PORT, token: str | None = None
    ) -> None:
        changes = Changes()
        people = People(gallery, None, changes)
        self._page = _Page(Routes(people, changes, None, None), people, changes, (host, port, token))
        self.address = self._page.address

    def __enter__(self) -> GalleryPage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self) -> None:
        """Wait until the page has ended; an interrupt ends the waiting."""
        self._page.serving.wait()

    def close(self) -> None:
        """End the page: it tells the browsers, and leaves no thread. What is being changed is finished first."""
        self._page.close()


class LivePage:
    """A web page that shows a live recognition, and enrols who is seen, besides what `GalleryPage` does.

    `show` only puts an update in the place of the last one: however many look at the page and whatever they do, the
    recognition goes on.

    Args:
        gallery: The `Gallery`, which the caller closes after the page.
        watcher: The `Watcher`, whose `clip` gives the walks to enrol.
        source: What is watched; None where it is not known.
        host: As in `GalleryPage`.
        port: As in `GalleryPage`.
        token: As in `GalleryPage`.
        keeping: What the gallery keeps of those who are enrolled; None for silhouettes without a last day.

    Attributes:
        address: Where the page is, and its token.

    Raises:
        ImportError: Starlette or uvicorn is missing.
        ValueError: The port or the token is none.
        OSError: The host is not known, or the port is taken.
    """

    def __init__(
        self,
        gallery: Known,
        watcher: Tracks,
        source: Source | None = None,
        *,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        token: str | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        changes = Changes()
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="page-pictures")
        self._pictures = Pictures(changes, self._workers)
        self._state = LiveState(source, watcher, changes)
        people = People(gallery, watcher, changes, keeping)
        routes = Routes(people, changes, self._state, self._pictures)
        self._page = _Page(routes, people, changes, (host, port, token))
        self.address = self._page.address

    def __enter__(self) -> LivePage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def wants_pictures(self) -> bool:
        """Whether somebody looks at the picture, so that it is worth drawing."""
        return self._pictures.viewers > 0

    def show(self, update: Update, image: NDArray[np.uint8] | None = None) -> None:
        """Show what a frame brought.

        Args:
            update: What the recognition gave for the frame.
            image: The frame with the people drawn in, BGR `[H, W, 3]` uint8, which the caller no longer changes; None
                shows the frame itself.
        """
        self._pictures.show(update.frame.image if image is None else image)
        self._state.show(update)

    def end(self, reason: str) -> None:
        """Say on the page that no frame will come any more; people can still be enrolled and removed.

        Args:
            reason: A sentence, such as "door.mp4 has ended".
        """
        self._state.end(reason)

    def close(self) -> None:
        """End the page: it tells the browsers, and leaves no thread. What is being changed is finished first."""
        self._page.close()
        self._workers.shutdown(wait=True, cancel_futures=True)


class _Page:
    """The routes at an address, served."""

    def __init__(self, routes: Routes, people: People, changes: Changes, place: tuple[str, int, str | None]) -> None:
        check_packages()
        host, port, token = place
        token, made = check_token(host, token)
        self._people, listening = people, bind(host, port)
        self.address = Address(host, listening.getsockname()[1], token, made)
        self.serving = ServingThread(Guard(routes.application(), self.address), listening, changes)
        self.serving.start()

    def close(self) -> None:
        self.serving.close()
        self._people.close()
