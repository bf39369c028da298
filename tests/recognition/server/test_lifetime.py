"""The page begins and ends: streams, threads, sockets, and what is under way when it closes."""

import builtins
import http.client
import socket
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from hstl_fast.recognition.server import GalleryPage, LivePage, serving
from hstl_fast.recognition.server.changes import Changes
from tests.helpers.page import (
    Events,
    PretendedGallery,
    PretendedWatcher,
    ask,
    change,
    connection,
    picture,
    read_picture,
    update,
)

pytest.importorskip("starlette", reason="needs the extra [recognition]")
pytest.importorskip("uvicorn", reason="needs the extra [recognition]")


def page_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("page")]


def test_closing_ends_the_streams_and_leaves_nothing() -> None:
    page = LivePage(PretendedGallery("Ann"), PretendedWatcher(), port=0)
    sender = connection(page.address)
    sender.request("GET", "/live.mjpeg")
    answered = sender.getresponse()
    page.show(update(0, {1: "Ann"}), picture(0))
    read_picture(answered)
    events = Events(page.address)
    events.until("status")
    assert ask(page.address, "/api/people").status == 200
    page.end("door.mp4 has ended")
    ended = events.until("status", lambda status: status["ended"] is not None)
    assert (ended["ended"], ended["seen"]) == ("door.mp4 has ended", [])
    # What was seen can still be enrolled.
    assert change(page.address, "/api/enroll", {"track": 1, "name": "Bea"}).status == 200
    page.close()
    page.close()
    assert events.until("closed") == {"reason": "door.mp4 has ended"}
    assert events.next() is None
    while answered.read(65536):
        pass
    assert not page_threads()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", page.address.port))
    # A watcher may show one more frame than the page lives.
    page.show(update(1, {}), picture(1))
    page.end("late")
    for each in (events, sender, answered):
        each.close()


@pytest.mark.slow
def test_a_client_that_does_not_read_does_not_keep_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_SECONDS_TO_END", 0.2)
    page = LivePage(PretendedGallery(), PretendedWatcher(), port=0)
    stuck, reading = connection(page.address), connection(page.address)
    answers = []
    for sender in (reading, stuck):
        sender.request("GET", "/live.mjpeg")
        answers.append(sender.getresponse())
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    for number in range(8):
        page.show(update(number, {}), noise)
        read_picture(answers[0])
    page.close()
    assert not page_threads()
    for sender, answered in zip((reading, stuck), answers, strict=True):
        # The connection ends, sooner than the client loses its patience.
        with suppress(ConnectionError, http.client.IncompleteRead):
            while answered.read(65536):
                pass
        sender.close()
        answered.close()


@pytest.mark.slow
def test_connections_without_a_request_leave_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_SECONDS_FOR_REQUEST", 0.3)
    with LivePage(PretendedGallery(), PretendedWatcher(), port=0) as page:
        events = connection(page.address)
        events.request("GET", "/api/events")
        told = events.getresponse()
        place = ("127.0.0.1", page.address.port)
        idle = [socket.create_connection(place, timeout=10) for _ in range(2)]
        idle[1].sendall(b"GET / HTTP/1.1\r\nHost: ")
        for one in idle:
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""
            one.close()
        page.end("over")
        while (line := told.readline()) and b"over" not in line:
            pass
        assert b"over" in line
        told.close()
        events.close()


def test_an_enrolment_under_way_is_finished() -> None:
    gallery = PretendedGallery()
    begun, go_on = threading.Event(), threading.Event()
    enroll = gallery.enroll

    def slowly(*given: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return enroll(*given, **options)

    gallery.enroll = slowly  # type: ignore[method-assign]
    page = LivePage(gallery, PretendedWatcher(), port=0)
    replies: list[int] = []
    asking = threading.Thread(
        target=lambda: replies.append(change(page.address, "/api/enroll", {"track": 1, "name": "Eve"}).status)
    )
    asking.start()
    assert begun.wait(20)
    closing = threading.Thread(target=page.close)
    closing.start()
    go_on.set()
    closing.join()
    asking.join()
    assert replies == [200]
    assert "Eve" in gallery.held
    assert not page_threads()


def test_a_page_that_cannot_begin_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name.split(".")[0] == "uvicorn":
            raise ImportError("no module of this name")
        return import_module(name, *given)

    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(ImportError, match=r"needs uvicorn, .*pip install 'hstl_fast\[recognition\]'"):
        GalleryPage(PretendedGallery(), port=0)
    assert not page_threads()


def test_two_pages_at_once() -> None:
    with GalleryPage(PretendedGallery("Ann"), port=0) as one, GalleryPage(PretendedGallery("Bea"), port=0) as other:
        assert one.address.port != other.address.port
        for page, name in ((one, "Ann"), (other, "Bea")):
            assert ask(page.address, "/api/people").json()["people"][0]["name"] == name


def test_a_server_that_hangs_does_not_keep_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_LONGEST_END", 0.2)
    begun, released = threading.Event(), threading.Event()

    async def hanging(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        released.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = serving.ServingThread(hanging, listening, Changes())
        served.start()
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert begun.wait(60)
            served.close()
            assert served._thread.is_alive()
            released.set()
            served._thread.join(60)
        assert not served._thread.is_alive()


def test_a_server_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    page = GalleryPage(PretendedGallery(), port=0)
    served = page._page.serving
    served._failure = OSError("no memory")
    served._server.should_exit = True
    with pytest.raises(RuntimeError, match=r"^the page has failed: no memory$"):
        page.wait()
    page.close()
