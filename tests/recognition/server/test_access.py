"""Who may use the page: hosts, tokens, and requests that other pages send in a browser's name."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from hstl_fast.recognition.server import GalleryPage
from hstl_fast.recognition.server.address import Address, bind, check_token, is_loopback
from tests.helpers.page import PretendedGallery, Reply, ask, change, connection

pytest.importorskip("starlette", reason="needs the extra [recognition]")
pytest.importorskip("uvicorn", reason="needs the extra [recognition]")

TOKEN = "a-token_of.the~test"


@pytest.fixture(scope="module")
def own() -> Iterator[Address]:
    """A page of this machine alone."""
    with GalleryPage(PretendedGallery("Ann"), port=0) as page:
        yield page.address


@pytest.fixture(scope="module")
def shared() -> Iterator[Address]:
    """A page with a token, at every number of the machine."""
    with GalleryPage(PretendedGallery("Ann"), host="0.0.0.0", port=0, token=TOKEN) as page:
        yield page.address


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "127.0.0.1", "localhost:9000", "[::1]:{port}"]
)
def test_answers_to_its_own_names(own: Address, host: str) -> None:
    assert ask(own, "/api/people", Host=host.format(port=own.port)).status == 200


FOREIGN = ("evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.0.1")
WRONG = ("user@127.0.0.1:{port}", "127.0.0.1:{port}/x", "127.0.0.1:x", "[::1", "", "127.0.0.1:{port}, evil.example")


@pytest.mark.parametrize("host", [*FOREIGN, *WRONG])
def test_answers_to_no_other_name(own: Address, host: str) -> None:
    reply = ask(own, "/api/people", Host=host.format(port=own.port))
    assert (reply.status, reply.json()["error"]) == (421, f"this page answers at {own.url} only")


def test_two_hosts_are_refused(own: Address) -> None:
    with socket.create_connection(("127.0.0.1", own.port), timeout=20) as sender:
        sender.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert sender.recv(1000).split()[1] in (b"400", b"421")


@pytest.mark.parametrize(
    ("host", "header", "is_own"),
    [
        ("0.0.0.0", "192.168.0.7:80", True),
        ("0.0.0.0", "evil.example", False),
        ("::", "[fe80::1]:80", True),
        ("192.168.0.7", "192.168.0.7:80", True),
        ("192.168.0.7", "192.168.0.8:80", False),
        ("192.168.0.7", "localhost:80", False),
        ("Camera.example", "camera.example:80", True),
        ("camera.example", "192.168.0.7", False),
        ("::1", "[::1]:80", True),
        ("localhost", "localhost", True),
    ],
)
def test_knows_the_names_of_what_is_bound(host: str, header: str, is_own: bool) -> None:
    assert Address(host, 80, None).is_own_name(header) is is_own


def test_the_machines_name_is_its_own() -> None:
    assert Address("0.0.0.0", 80, None).is_own_name(f"{socket.gethostname()}:80")


@pytest.mark.parametrize("path", ["/", "/api/people", "/api/events", "/live.mjpeg", "/static/page.js", "/x"])
@pytest.mark.parametrize(
    "headers",
    [{}, bearing("wrong"), bearing(""), {"Cookie": "hstl_fast_{port}=wrong"}, {"Cookie": f"hstl_fast_1={TOKEN}"}],
)
def test_without_the_token_there_is_nothing(shared: Address, path: str, headers: dict[str, str]) -> None:
    headers = {name: value.format(port=shared.port) for name, value in headers.items()}
    reply = ask(shared, path, **headers)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "token" in reply.json()["error"]


def test_a_browser_is_asked_for_the_token(shared: Address) -> None:
    for path in ("/", "/?token=wrong", "/?token=", f"/?token={TOKEN}x", "/?token=%ff"):
        reply = ask(shared, path, Accept="text/html,*/*")
        assert (reply.status, reply.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert b"This page needs its token" in reply.body
        assert "set-cookie" not in reply.headers
    assert ask(shared, "/static/page.css").status == ask(shared, "/static/icon.svg").status == 200


def test_the_token_of_the_address_becomes_a_cookie(shared: Address) -> None:
    reply = ask(shared, f"/?token={TOKEN}")
    assert (reply.status, reply.headers["location"]) == (303, "/")
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Lax"}
    assert ask(shared, "/", Cookie=cookie).status == 200
    assert ask(shared, "/api/people", Cookie=f"other=1; {cookie}").json()["people"][0]["name"] == "Ann"
    assert ask(shared, "/api/people", **bearing(TOKEN)).status == 200


def test_the_token_counts_in_no_other_address(shared: Address) -> None:
    assert ask(shared, f"/api/people?token={TOKEN}").status == 401


def test_a_change_needs_the_token_too(shared: Address) -> None:
    assert change(shared, "/api/people/remove", {"name": "Ann"}).status == 401
    foreign = {"Origin": "http://evil.example", "Cookie": f"hstl_fast_{shared.port}={TOKEN}"}
    assert change(shared, "/api/people/remove", {"name": "Ann"}, **foreign).status == 403


def test_a_program_with_the_token_needs_no_origin(shared: Address) -> None:
    headers = {"Content_Type": "application/json", **bearing(TOKEN)}
    reply = ask(shared, "/api/people/rename", "POST", b'{"old": "Ann", "new": "Bea"}', **headers)
    assert reply.json() == {"name": "Bea"}
    assert ask(shared, "/api/people/rename", "POST", b'{"old": "Bea", "new": "Ann"}', **headers).status == 200


def removal(address: Address, **headers: Any) -> Reply:
    given = {name: value for name, value in headers.items() if value is not None}
    return ask(address, "/api/people/remove", "POST", b'{"name": "Ann"}', **given)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain", "Origin": "http://127.0.0.1:{port}"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded", "Origin": "http://127.0.0.1:{port}"}, 415),
        ({"Origin": "http://127.0.0.1:{port}"}, 415),
        ({"Content_Type": "application/json"}, 403),
        ({"Content_Type": "application/json", "Origin": "null"}, 403),
        ({"Content_Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"Content_Type": "application/json", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Content_Type": "application/json", "Origin": "https://127.0.0.1:{port}"}, 403),
        (
            {"Content_Type": "application/json", "Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "cross-site"},
            403,
        ),
        ({"Content_Type": "application/json", "Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "application/json", "Origin": "http://127.0.0.1:{port}", "Host": "evil.example"}, 421),
    ],
)
def test_changes_of_other_pages_are_refused(own: Address, headers: dict[str, str], status: int) -> None:
    reply = removal(own, **{name: value.format(port=own.port) for name, value in headers.items()})
    assert reply.status == status
    assert ask(own, "/api/people").json()["people"][0]["name"] == "Ann"


def test_other_pages_may_link_here_but_embed_nothing(own: Address) -> None:
    foreign = {"Sec_Fetch_Site": "cross-site"}
    assert ask(own, "/", Sec_Fetch_Mode="navigate", **foreign).status == 200
    assert ask(own, "/", Sec_Fetch_Mode="no-cors", **foreign).status == 403
    assert ask(own, "/live.mjpeg", Sec_Fetch_Mode="no-cors", **foreign).status == 403
    assert ask(own, "/api/people", Sec_Fetch_Mode="navigate", **foreign).status == 403
    headers = ask(own, "/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_body_without_end_is_cut_off(own: Address) -> None:
    sender = connection(own)
    sender.putrequest("POST", "/api/people/remove")
    for name, value in {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{own.port}"}.items():
        sender.putheader(name, value)
    sender.putheader("Content-Length", str(10**9))
    sender.endheaders(b"x" * 20_000)
    assert sender.getresponse().status == 413
    sender.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert check_token(host, None) == (None, False)
    assert check_token(host, TOKEN) == (TOKEN, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.7", "camera.example", "127.0.0.1.example"])
def test_others_need_a_token(host: str) -> None:
    assert not is_loopback(host)
    made = [check_token(host, None) for _ in range(2)]
    assert all(token is not None and len(token) >= 32 and is_made for token, is_made in made)
    assert made[0] != made[1]
    assert check_token(host, TOKEN) == (TOKEN, False)


@pytest.mark.parametrize("token", ["", "short", "a token of the test", "a-token-of-the-tést", "a-token;of-the-test"])
def test_poor_tokens_are_refused(token: str) -> None:
    with pytest.raises(ValueError, match=rf"token must be 12 or more .* got {len(token)} characters"):
        check_token("0.0.0.0", token)


def test_an_address_does_not_show_its_token() -> None:
    address = Address("192.168.0.7", 80, TOKEN)
    assert TOKEN not in repr(address)
    assert address.url == "http://192.168.0.7:80/"
    assert address.url_with_token == f"http://192.168.0.7:80/?token={TOKEN}"
    assert Address("::1", 80, None).url_with_token == "http://[::1]:80/"


def test_a_taken_port_is_said() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=f"port {port} of 127.0.0.1 is taken by another program; choose another by --port"
        ):
            GalleryPage(PretendedGallery(), port=port)


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("no-such-host.invalid", 0, "host must be a name or a number of this machine, got 'no-such-host.invalid'"),
        ("203.0.113.7", 0, "host must be a name or a number of this machine, got '203.0.113.7'"),
        ("127.0.0.1", 65536, "port must be between 0 and 65535, got 65536"),
        ("127.0.0.1", -1, "port must be between 0 and 65535, got -1"),
    ],
)
def test_places_that_are_none_are_said(host: str, port: int, said: str) -> None:
    with pytest.raises((OSError, ValueError), match=said):
        bind(host, port)
