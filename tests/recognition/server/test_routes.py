"""What the page's addresses answer: a gallery, a live recognition, and requests that are wrong."""

import json
import logging
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import pytest

from hstl_fast.recognition.server import GalleryPage, LivePage, pictures
from hstl_fast.recognition.server.streams import BOUNDARY
from tests.helpers.page import (
    Events,
    PretendedGallery,
    PretendedSource,
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


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LivePage, PretendedGallery]]:
    gallery = PretendedGallery()
    with LivePage(gallery, PretendedWatcher(), PretendedSource(), port=0) as page:
        yield page, gallery


@pytest.fixture
def page(served: tuple[LivePage, PretendedGallery], gallery: PretendedGallery) -> LivePage:
    return served[0]


@pytest.fixture
def gallery(served: tuple[LivePage, PretendedGallery]) -> PretendedGallery:
    """The gallery as it was before, with Ann and somebody with a name that looks like HTML."""
    _, gallery = served
    fresh = PretendedGallery("Ann", '<b>&"')
    gallery.held, gallery.failure = fresh.held, None
    return gallery


class Logged(logging.Handler):
    """Keeps what is logged, which may be after the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: queue.Queue[str] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.put(logging.Formatter().format(record))

    def wait(self) -> str:
        return self._texts.get(timeout=20)


@pytest.fixture
def logged() -> Iterator[Logged]:
    handler, logger = Logged(), logging.getLogger("hstl_fast.recognition.server")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def names(page: LivePage) -> list[str]:
    return [person["name"] for person in ask(page.address, "/api/people").json()["people"]]


def test_shows_the_page_and_its_files(page: LivePage) -> None:
    index = ask(page.address, "/")
    assert (index.status, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in index.headers["content-security-policy"]
    assert index.headers["x-content-type-options"] == "nosniff"
    named = {part.split('"')[0] for part in index.body.decode().split('"/static/')[1:]}
    assert named == {"icon.svg", "page.css", "page.js"}
    kinds = {name: ask(page.address, f"/static/{name}").headers["content-type"] for name in sorted(named)}
    assert kinds["page.js"].startswith("text/javascript")
    assert kinds["page.css"].startswith("text/css")


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static", "/static/index.html", "/static/../page.py", "/static/%2e%2e%2fpage.py", "/api", "/x"],
)
def test_nothing_else_is_served(page: LivePage, path: str) -> None:
    reply = ask(page.address, path)
    assert reply.status == 404
    assert reply.json() == {"error": "there is nothing at this address"}


def test_lists_people_by_name(page: LivePage) -> None:
    reply = ask(page.address, "/api/people").json()["people"]
    assert reply == [
        {"name": '<b>&"', "recordings": 1, "created": "2026-12-01T09:30:00+00:00"},
        {"name": "Ann", "recordings": 1, "created": "2026-12-01T09:30:00+00:00"},
    ]


def test_enrols_renames_and_removes(page: LivePage, gallery: PretendedGallery) -> None:
    reply = change(page.address, "/api/enroll", {"track": 1, "name": "  Bea "})
    assert reply.status == 200
    assert [one["person"] for one in reply.json()["recordings"]] == ["Bea"]
    assert len(gallery.held["Bea"][0].silhouettes) == 30
    assert change(page.address, "/api/people/rename", {"old": "Bea", "new": "Bé<a?"}).json() == {"name": "Bé<a?"}
    assert names(page) == ['<b>&"', "Ann", "Bé<a?"]
    assert change(page.address, "/api/people/remove", {"name": "Bé<a?"}).json() == {"removed": 1}
    assert names(page) == ['<b>&"', "Ann"]


def test_an_enrolment_is_undone(page: LivePage, gallery: PretendedGallery) -> None:
    (recording,) = change(page.address, "/api/enroll", {"track": 1, "name": "Ann", "add": True}).json()["recordings"]
    assert (recording["person"], recording["frames"], recording["keep_until"]) == ("Ann", 30, None)
    undo = {"recording": recording["id"]}
    assert change(page.address, "/api/recordings/remove", undo).json() == {"removed": 1}
    assert len(gallery.held["Ann"]) == 1
    assert change(page.address, "/api/recordings/remove", undo).json() == {"error": "there is no recording 1"}


def test_a_name_that_is_taken_can_be_added_to(page: LivePage, gallery: PretendedGallery) -> None:
    taken = change(page.address, "/api/enroll", {"track": 1, "name": "Ann"})
    assert (taken.status, taken.json()["taken"]) == (409, True)
    assert "'Ann'" in taken.json()["error"]
    assert len(gallery.held["Ann"]) == 1
    assert change(page.address, "/api/enroll", {"track": 1, "name": "Ann", "add": True}).status == 200
    assert len(gallery.held["Ann"]) == 2


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        ("/api/enroll", {"track": 9, "name": "Cem"}, 404, "track 9 ended too long ago"),
        ("/api/enroll", {"track": 2, "name": "Cem"}, 400, "a walk needs 5 frames, got 3"),
        ("/api/enroll", {"track": "1", "name": "Cem"}, 400, "expected a whole number as track"),
        ("/api/enroll", {"track": True, "name": "Cem"}, 400, "expected a whole number as track"),
        ("/api/enroll", {"track": 1, "name": "Cem", "add": "yes"}, 400, "true or false as add"),
        ("/api/enroll", {"track": 2**63, "name": "Cem"}, 400, "expected a whole number as track"),
        ("/api/recordings/remove", {"recording": "1"}, 400, "expected a whole number as recording"),
        ("/api/recordings/remove", {"recording": 99}, 400, "there is no recording 99"),
        ("/api/enroll", {"track": 1, "name": " "}, 400, "name must have at least one letter"),
        ("/api/enroll", {"track": 1, "name": "a\u202eb"}, 400, "name must have no control characters"),
        ("/api/enroll", {"track": 1, "name": 7}, 400, "expected a name as name"),
        ("/api/enroll", {"track": 1}, 400, "expected a name as name"),
        ("/api/enroll", {"track": 1, "name": "x" * 201}, 400, "at most 200 letters; got 201"),
        ("/api/enroll", ["Cem"], 400, "expected a JSON object"),
        ("/api/people/remove", {"name": "Cem"}, 400, "nobody is called 'Cem'"),
        ("/api/people/rename", {"old": "Ann", "new": '<b>&"'}, 400, "is taken"),
        ("/api/people/rename", {"old": "Ann"}, 400, "expected a name as new"),
        ("/api/people/remove", {"name": "x" * 20_000}, 413, "16384 bytes at most"),
    ],
)
def test_wrong_changes_change_nothing(
    page: LivePage, gallery: PretendedGallery, path: str, content: Any, status: int, said: str
) -> None:
    reply = change(page.address, path, content)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert said in reply.json()["error"]
    assert names(page) == ['<b>&"', "Ann"]
    assert len(gallery.held["Ann"]) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 16_000])
def test_what_is_no_json_is_refused(page: LivePage, body: bytes) -> None:
    own = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{page.address.port}"}
    reply = ask(page.address, "/api/enroll", "POST", body, **own)
    assert (reply.status, reply.json()["error"]) == (400, "expected a JSON object")


def test_other_methods_are_refused(page: LivePage) -> None:
    own = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{page.address.port}"}
    assert ask(page.address, "/api/people", "DELETE", b"{}", **own).status == 405
    assert ask(page.address, "/api/enroll").status == 405
    assert ask(page.address, "/live.mjpeg", "HEAD").status == 405
    assert ask(page.address, "/api/people", "OPTIONS").status == 415


def test_an_unexpected_error_is_no_traceback(page: LivePage, gallery: PretendedGallery, logged: Logged) -> None:
    gallery.failure = AttributeError("secret detail")
    reply = ask(page.address, "/api/people?token=secret")
    assert reply.status == 500
    assert reply.json() == {"error": "an unexpected error; the terminal shows it"}
    text = logged.wait()
    assert "secret detail" in text
    assert "token=" not in text


def test_a_gallery_that_is_away_is_said_and_comes_back(page: LivePage, gallery: PretendedGallery) -> None:
    events = Events(page.address)
    assert events.until("status")["gallery"]["error"] is None
    gallery.failure = OSError("the database does not answer")
    reply = ask(page.address, "/api/people")
    assert (reply.status, reply.json()) == (503, {"error": "the database does not answer"})
    away = events.until("status", lambda status: status["gallery"]["error"] is not None)
    assert away["gallery"]["error"] == "the database does not answer"
    assert change(page.address, "/api/people/remove", {"name": "Ann"}).status == 503
    gallery.failure = None
    assert ask(page.address, "/api/status").json()["gallery"]["error"] is None
    events.until("status", lambda status: status["gallery"]["error"] is None)
    assert "Ann" in names(page)
    events.close()


def test_two_pages_learn_of_each_other(page: LivePage) -> None:
    one, other = Events(page.address), Events(page.address)
    before = [events.until("status")["gallery"]["state"] for events in (one, other)]
    assert before[0] == before[1]
    change(page.address, "/api/enroll", {"track": 1, "name": "Dan"})
    for events in (one, other):
        events.until("status", lambda status: status["gallery"]["state"] != before[0])
        events.close()


def test_says_who_is_seen(page: LivePage) -> None:
    page.show(update(0, {1: "Ann", 2: None}, early=[3], ended=[7]))
    status = ask(page.address, "/api/status").json()
    assert (status["live"], status["source"], status["reconnections"], status["dropped"]) == (True, "door.mp4", 2, 3)
    assert (status["fps"], status["delay"], status["frame"]) == (24.6, 0.085, 0)
    ann, stranger, early = status["seen"]
    assert (ann["track"], ann["name"], ann["distance"], ann["threshold"]) == (1, "Ann", 6.25, 8.0)
    assert (stranger["answered"], stranger["name"], stranger["nearest"]) == (True, None, "Ann")
    assert (early["answered"], early["name"], early["frames"]) == (False, None, 4)
    sightings = ask(page.address, "/api/sightings").json()["sightings"]
    assert [(one["track"], one["name"], one["ended"]) for one in sightings[-3:]] == [
        (1, "Ann", False),
        (2, None, False),
        (7, None, True),
    ]
    assert [one["portrait"] is None for one in sightings[-3:]] == [False, False, True]
    # A track that was told of only after its end, whose silhouettes are still there, is shown by one of them.
    page.show(update(1, {}, ended=[4]))
    assert ask(page.address, "/api/sightings").json()["sightings"][-1]["portrait"] == 1
    assert ask(page.address, "/api/portraits/4.jpeg").status == 200


def test_shows_portraits(page: LivePage) -> None:
    page.show(update(0, {5: "Ann"}))
    reply = ask(page.address, "/api/portraits/5.jpeg")
    image = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_COLOR)
    # The box (20, 70, 40, 130) with ten pixels around it.
    assert image.shape == (150, 60, 3)
    assert np.abs(image[75, 30].astype(int) - (60, 150, 220)).max() < 12
    assert ask(page.address, "/api/portraits/999.jpeg").status == 404
    for wrong in ("x", "-1", "5.0", "9" * 5000):
        assert ask(page.address, f"/api/portraits/{wrong}.jpeg").status == 404


def test_sightings_arrive_once(page: LivePage) -> None:
    events = Events(page.address)
    page.show(update(3, {21: "Ann"}))
    events.until("sightings", lambda new: new[-1]["track"] == 21)
    page.show(update(4, {}, ended=[22]))
    assert [one["track"] for one in events.until("sightings")] == [22]
    events.close()


def test_the_name_of_somebody_removed_is_taken_back(page: LivePage) -> None:
    assert change(page.address, "/api/enroll", {"track": 1, "name": "Gil"}).status == 200
    page.show(update(3, {31: "Gil", 32: "Ann"}))
    events = Events(page.address)
    events.until("sightings", lambda new: new[-1]["track"] == 32)
    assert change(page.address, "/api/people/remove", {"name": "Gil"}).status == 200
    assert names(page) == ['<b>&"', "Ann"]
    assert [(one["track"], one["name"]) for one in events.until("sightings")] == [(31, None)]
    events.close()


def test_only_the_newest_sightings_are_kept(page: LivePage) -> None:
    for track in range(1000, 1250):
        page.show(update(5, {track: None}))
    sightings = ask(page.address, "/api/sightings").json()["sightings"]
    assert [one["track"] for one in sightings] == list(range(1050, 1250))


def test_the_picture_changes(page: LivePage) -> None:
    sender = connection(page.address)
    sender.request("GET", "/live.mjpeg")
    answered = sender.getresponse()
    assert answered.headers["content-type"] == f"multipart/x-mixed-replace; boundary={BOUNDARY}"
    for number in (10, 60):
        shown = picture(number)
        page.show(update(number, {}), shown)
        wanted = shown[5, 5].astype(int)
        while True:
            image = cv2.imdecode(np.frombuffer(read_picture(answered), np.uint8), cv2.IMREAD_COLOR)
            if np.abs(image[5, 5] - wanted).max() < 12:
                break
    assert page.wants_pictures
    sender.close()
    answered.close()


def test_many_clients_share_one_compression(page: LivePage, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[int] = []
    compress = pictures.compress

    def counted(image: Any) -> bytes:
        compressed.append(1)
        return compress(image)

    monkeypatch.setattr(pictures, "compress", counted)
    senders = [connection(page.address) for _ in range(6)]
    answers = []
    for sender in senders:
        sender.request("GET", "/live.mjpeg")
        answers.append(sender.getresponse())
    page.show(update(0, {}), picture(0))
    for answered in answers:
        read_picture(answered)
    # From here on all of them wait for the next one.
    before = len(compressed)
    for number in (1, 2, 3):
        page.show(update(number, {}), picture(number))
        for answered in answers:
            read_picture(answered)
    assert len(compressed) - before <= 3
    for sender, answered in zip(senders, answers, strict=True):
        sender.close()
        answered.close()


def test_a_client_that_does_not_read_holds_up_nothing(page: LivePage) -> None:
    """The other client gets every picture, and that one, when it reads again, the newest after a few."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    stuck, reading = connection(page.address), connection(page.address)
    answers = []
    for sender in (reading, stuck):
        sender.request("GET", "/live.mjpeg")
        answers.append(sender.getresponse())
    numbers = list(range(12))
    for number in numbers:
        shown = noise.copy()
        shown[:16, :16] = 20 * number
        page.show(update(number, {}), shown)
        while number_in(read_picture(answers[0])) != number:
            pass
    assert ask(page.address, "/api/status").status == 200
    late = []
    while not late or late[-1] != numbers[-1]:
        late.append(number_in(read_picture(answers[1])))
    assert len(late) <= len(numbers) // 2
    for sender, answered in zip((reading, stuck), answers, strict=True):
        sender.close()
        answered.close()


def number_in(jpeg: bytes) -> int:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return round(float(image[4:12, 4:12].mean()) / 20)


def test_noise_at_the_port_is_ignored(page: LivePage, capfd: pytest.CaptureFixture[str]) -> None:
    for noise in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", page.address.port), timeout=20) as sender, suppress(OSError):
            sender.sendall(noise)
            sender.shutdown(socket.SHUT_WR)
            while sender.recv(65536):
                pass
    assert ask(page.address, "/api/status").status == 200
    assert capfd.readouterr() == ("", "")


def test_a_slow_enrolment_does_not_stop_the_rest(page: LivePage, gallery: PretendedGallery) -> None:
    begun, go_on = threading.Event(), threading.Event()
    enroll = gallery.enroll

    def slowly(*given: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return enroll(*given, **options)

    gallery.enroll = slowly  # type: ignore[method-assign]
    replies: list[int] = []
    thread = threading.Thread(
        target=lambda: replies.append(change(page.address, "/api/enroll", {"track": 1, "name": "Eve"}).status)
    )
    thread.start()
    assert begun.wait(20)
    page.show(update(77, {}), picture(77))
    assert ask(page.address, "/api/status").json()["frame"] == 77
    assert names(page) == ['<b>&"', "Ann"]
    go_on.set()
    thread.join()
    del gallery.enroll
    assert replies == [200]
    assert "Eve" in names(page)


def test_a_gallery_alone_has_no_picture() -> None:
    with GalleryPage(PretendedGallery("Ann"), port=0) as page:
        status = ask(page.address, "/api/status").json()
        assert status == {"live": False, "gallery": {"state": "0", "error": None}}
        assert ask(page.address, "/live.mjpeg").status == 404
        assert ask(page.address, "/api/sightings").json() == {"sightings": []}
        reply = change(page.address, "/api/enroll", {"track": 1, "name": "Bea"})
        assert (reply.status, "nobody is watched here" in reply.json()["error"]) == (409, True)
        assert json.loads(ask(page.address, "/api/people").body)["people"][0]["name"] == "Ann"
