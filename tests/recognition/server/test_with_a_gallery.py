"""The page over a real gallery, in a file and on a server."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from hstl_fast.network import Network
from hstl_fast.recognition import Clip, Gallery
from hstl_fast.recognition.server import Keeping, LivePage
from hstl_fast.recognition.server.address import Address
from tests.helpers.page import Events, PretendedSource, ask, change
from tests.helpers.postgres import Server
from tests.recognition.conftest import WalkMaker

pytest.importorskip("starlette", reason="needs the extra [recognition]")
pytest.importorskip("uvicorn", reason="needs the extra [recognition]")


class Tracks:
    """Track n has walk n, and track 0 one of too few frames."""

    def __init__(self, walk: WalkMaker) -> None:
        self._walk = walk

    def clip(self, track: int) -> Clip | None:
        return self._walk(track, frames=6 if track else 4) if track < 5 else None


@pytest.fixture
def gallery(url: str, network: Network) -> Iterator[Gallery]:
    with Gallery(url, network=network) as opened:
        yield opened


@pytest.fixture
def page(gallery: Gallery, walk: WalkMaker) -> Iterator[LivePage]:
    with LivePage(gallery, Tracks(walk), PretendedSource(), port=0) as served:
        yield served


def people(page: LivePage) -> dict[str, int]:
    return {each["name"]: each["recordings"] for each in ask(page.address, "/api/people").json()["people"]}


def test_changes_reach_the_gallery(page: LivePage, gallery: Gallery, walk: WalkMaker) -> None:
    assert change(page.address, "/api/enroll", {"track": 1, "name": "Zoé"}).status == 200
    (recording,) = gallery.recordings("Zoé")
    assert (recording.source, recording.frames, recording.has_silhouettes) == (walk(1).source, 6, True)
    assert gallery.identify([walk(1)])[0].name == "Zoé"
    # The same name in letters that are composed of two.
    taken = change(page.address, "/api/enroll", {"track": 2, "name": "Zoe\u0301"})
    assert (taken.status, taken.json()["taken"]) == (409, True)
    assert change(page.address, "/api/enroll", {"track": 2, "name": "Zoe\u0301", "add": True}).status == 200
    assert people(page) == {"Zoé": 2}
    number = gallery.recordings("Zoé")[0].id
    assert change(page.address, "/api/recordings/remove", {"recording": number}).status == 200
    assert people(page) == {"Zoé": 1}
    assert change(page.address, "/api/people/rename", {"old": "Zoé", "new": "Ada"}).status == 200
    assert change(page.address, "/api/people/remove", {"name": "Ada"}).json() == {"removed": 1}
    assert gallery.people() == []


def test_the_gallery_keeps_of_the_enrolled_what_was_said(gallery: Gallery, walk: WalkMaker) -> None:
    keeping = Keeping(silhouettes=False, days=3)
    with LivePage(gallery, Tracks(walk), PretendedSource(), port=0, keeping=keeping) as page:
        assert change(page.address, "/api/enroll", {"track": 1, "name": "Ada"}).status == 200
    (recording,) = gallery.recordings("Ada")
    assert not recording.has_silhouettes
    assert recording.keep_until is not None
    assert timedelta(days=2.9) < recording.keep_until - recording.created < timedelta(days=3.1)


def test_what_the_gallery_refuses_is_said(page: LivePage, gallery: Gallery) -> None:
    assert change(page.address, "/api/enroll", {"track": 1, "name": "Ada"}).status == 200
    for content, said in (
        ({"track": 0, "name": "Bob"}, "at least 5 silhouettes are needed"),
        ({"track": 1, "name": "Bob"}, "Ada"),
        ({"track": 2, "name": "a/b"}, "name must have no slash"),
    ):
        reply = change(page.address, "/api/enroll", content)
        assert (reply.status, said in reply.json()["error"]) == (400, True), reply
    assert change(page.address, "/api/people/remove", {"name": "Bob"}).status == 400
    assert people(page) == {"Ada": 1}


def test_changes_of_others_are_told(page: LivePage, url: str, network: Network, walk: WalkMaker) -> None:
    events = Events(page.address)
    before = events.until("status", lambda status: status["gallery"]["state"] is not None)["gallery"]["state"]
    with Gallery(url, network=network) as other:
        other.enroll("Ada", [walk(1)])
    events.until("status", lambda status: status["gallery"]["state"] != before)
    assert people(page) == {"Ada": 1}
    events.close()


@pytest.mark.slow
def test_a_server_that_is_down_is_said_until_it_is_back(
    postgres_server: Server, postgres_url: str, network: Network, walk: WalkMaker
) -> None:
    with (
        Gallery(postgres_url, network=network) as gallery,
        LivePage(gallery, Tracks(walk), PretendedSource(), port=0) as page,
    ):
        gallery.enroll("Ada", [walk(1)])
        events = Events(page.address)
        events.until("status")
        postgres_server.stop()
        try:
            with ThreadPoolExecutor(1) as beside:
                asked = beside.submit(ask, page.address, "/api/people")
                away = events.until("status", lambda status: status["gallery"]["error"] is not None)
            reply = asked.result()
        finally:
            postgres_server.start()
        assert "the database cannot be reached" in away["gallery"]["error"]
        assert (reply.status, "cannot be reached" in reply.json()["error"]) == (503, True)
        assert postgres_server.password not in str(away) + str(reply)
        events.until("status", lambda status: status["gallery"]["error"] is None)
        assert people(page) == {"Ada": 1}
        events.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_until_it_is_interrupted(
    tmp_path: Path, network: Network, walk: WalkMaker, environment: dict[str, str], number: signal.Signals
) -> None:
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
    command = [sys.executable, "-m", "hstl_fast", "gallery", "serve", "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            line = program.stdout.readline()
            port, token = re.search(r":(\d+)/\?token=(\S+)$", line).groups()
            address = Address("127.0.0.1", int(port), token)
            assert ask(address, "/api/people").status == 401
            found = ask(address, "/api/people", Authorization=f"Bearer {token}").json()["people"]
            assert [each["name"] for each in found] == ["Ada"]
            program.send_signal(number)
            rest, errors = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 0, errors
    assert rest.splitlines()[-1] == "The page has ended."
    assert token not in rest + errors
    assert not errors
    assert [path.name for path in tmp_path.iterdir()] == ["people.db"]
