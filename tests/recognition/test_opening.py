"""Opening galleries: addresses, files that are none, damaged ones, other formats, and databases that are away."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hstl_fast.network import Network
from hstl_fast.recognition import Gallery, GalleryError
from hstl_fast.recognition.storage import database, migration, opening, tables
from hstl_fast.recognition.storage.addresses import Address
from hstl_fast.recognition.storage.troubles import Trouble
from hstl_fast.silhouettes import extras
from tests.helpers.postgres import Server, free_port
from tests.recognition.conftest import WalkMaker


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up at once."""
    monkeypatch.setattr(database, "PATIENCE", dict.fromkeys(Trouble, 0.0))
    monkeypatch.setattr(database, "_LOCK_SECONDS", 0.01)


@pytest.fixture
def people(tmp_path: Path, network: Network, walk: WalkMaker) -> Path:
    """A gallery file with somebody in it."""
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
    return tmp_path / "people.db"


@pytest.mark.parametrize(
    ("url", "shown", "path"),
    [
        ("people.db", "sqlite:///people.db", "people.db"),
        (Path("some") / "people.db", "sqlite:///some/people.db", "some/people.db"),
        ("sqlite:///people.db", "sqlite:///people.db", "people.db"),
        ("sqlite:////tmp/people.db", "sqlite:////tmp/people.db", "/tmp/people.db"),
    ],
)
def test_addresses_of_files(url: Any, shown: str, path: str) -> None:
    address = Address.parse(url)
    assert (address.shown, address.name, address.file) == (shown, path, Path(path))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_addresses_of_servers_are_shown_without_password(scheme: str) -> None:
    address = Address.parse(f"{scheme}://ada:s%20ecret@host:5433/people?sslmode=require&password=s%20ecret")
    assert address.shown == address.name == "postgresql://ada@host:5433/people?sslmode=require"
    assert address.server is not None
    assert (address.server.drivername, address.server.password) == ("postgresql+psycopg", "s ecret")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            ":memory:",
            "sqlite://",
            "sqlite:people.db",
            "sqlite:///people.db?mode=ro",
            "mysql://ada:secret@host/people",
        ),
        *("postgresql://ada:secret@host:port/people", "postgresql://ada:secret@host", "http://secret@host"),
    ],
)
def test_other_addresses_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(GalleryError, match=r"expected a file such as people\.db") as refused:
        Gallery(url)
    assert "secret" not in str(refused.value)


def test_a_missing_gallery_is_not_made_where_it_may_not_be(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"none\.db: there is no such gallery; `hstl-fast enroll` makes one"):
        Gallery(tmp_path / "none.db", create=False)
    with pytest.raises(GalleryError, match="expected a folder that exists"):
        Gallery(tmp_path / "no" / "none.db")
    with pytest.raises(GalleryError, match="got a folder"):
        Gallery(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_gallery_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    path.write_text("name,walk\n")
    with pytest.raises(GalleryError, match="got a file of another kind"):
        Gallery(path)
    assert path.read_text() == "name,walk\n"
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    before = path.read_bytes()
    with pytest.raises(GalleryError, match="got an SQLite database of something else"):
        Gallery(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_gallery(tmp_path: Path) -> None:
    """A process that is killed while it makes a gallery leaves such a file."""
    path = tmp_path / "people.db"
    path.touch()
    with pytest.raises(GalleryError, match="there is no gallery in this database"):
        Gallery(path, create=False)
    with Gallery(path) as gallery:
        assert gallery.people() == []


def test_a_damaged_file_is_refused(people: Path) -> None:
    data = people.read_bytes()
    for damaged in (data[: len(data) // 2], data[:8192] + b"\x55" * 8192 + data[2 * 8192 :]):
        people.write_bytes(damaged)
        with pytest.raises(GalleryError, match=r"people\.db is damaged.*nothing was changed"):
            Gallery(people)
        assert people.read_bytes() == damaged


def test_a_damaged_embedding_is_refused(people: Path, network: Network, walk: WalkMaker) -> None:
    with Gallery(people, network=network) as gallery:
        vector = gallery.vectors().vectors.tobytes()
    data = people.read_bytes()
    at = data.index(vector[:64])
    people.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with Gallery(people, network=network) as gallery:
        assert len(gallery.people()) == 1
        for action in (lambda: gallery.identify([walk(1)]), gallery.check):
            with pytest.raises(GalleryError, match="the embedding of recording 1 is damaged"):
                action()


def test_damaged_silhouettes_are_found(people: Path, network: Network) -> None:
    with closing(sqlite3.connect(people)) as connection, connection:
        connection.execute("UPDATE hstl_recordings SET silhouettes = substr(silhouettes, 1, 100)")
    with (
        Gallery(people, network=network) as gallery,
        pytest.raises(GalleryError, match=r"recording 1: compressed silhouettes"),
    ):
        gallery.check()


def test_a_gallery_of_a_newer_format_is_refused(people: Path) -> None:
    with closing(sqlite3.connect(people)) as connection, connection:
        connection.execute("UPDATE hstl_meta SET format = 99")
    before = people.read_bytes()
    with pytest.raises(GalleryError, match="format 1 or older; got 99, which a newer hstl_fast wrote"):
        Gallery(people)
    assert people.read_bytes() == before


def add_shoes(connection: Any) -> None:
    connection.execute(text("ALTER TABLE hstl_people ADD COLUMN shoes INTEGER"))


def stumble(connection: Any) -> None:
    raise KeyboardInterrupt


def shoes(gallery: Gallery) -> list[Any]:
    return gallery._database.read(lambda connection: connection.execute(text("SELECT shoes FROM hstl_people")).all())


def test_an_older_gallery_is_migrated_with_a_backup(
    url: str, tmp_path: Path, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery(url, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
    monkeypatch.setattr(tables, "FORMAT", 3)
    with pytest.raises(GalleryError, match="how to migrate one of format 1 is not known"):
        Gallery(url)
    monkeypatch.setattr(migration, "STEPS", {1: add_shoes, 2: stumble})
    with pytest.raises(KeyboardInterrupt):
        Gallery(url)
    monkeypatch.setattr(migration, "STEPS", {1: add_shoes, 2: lambda connection: None})
    with Gallery(url, network=network) as gallery:
        assert shoes(gallery) == [(None,)]
        assert gallery.identify([walk(1)])[0].name == "Ada"
    monkeypatch.undo()
    with pytest.raises(GalleryError, match="got 3, which a newer"):
        Gallery(url)
    if url.startswith("sqlite"):
        # One of the attempt that stumbled.
        for backup in ("people.format-1.db", "people.format-1-2.db"):
            assert (tmp_path / backup).stat().st_mode & 0o077 == 0
            with Gallery(tmp_path / backup, network=network) as gallery:
                assert gallery.identify([walk(1)])[0].name == "Ada"
        assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_went_away_is_said(people: Path, network: Network, impatient: None, walk: WalkMaker) -> None:
    with Gallery(people, network=network) as gallery:
        people.unlink()
        with pytest.raises(GalleryError, match=r"people\.db cannot be opened"):
            gallery.enroll("Bob", [walk(2)])
    assert not people.exists()


def test_a_locked_gallery_is_waited_for(
    people: Path, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    with Gallery(people, network=network) as gallery, closing(sqlite3.connect(people, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GalleryError, match=r"people\.db: the gallery is locked by others"):
            gallery.enroll("Bob", [walk(2)])
        assert len(gallery.people()) == 1
        monkeypatch.setattr(database, "PATIENCE", dict.fromkeys(Trouble, 60.0))
        # Another look at the lock gives it back.
        monkeypatch.setattr(database.time, "sleep", lambda seconds: other.execute("COMMIT"))
        gallery.enroll("Bob", [walk(2)])
        assert len(gallery.people()) == 2


def test_a_large_file_is_checked_when_asked(people: Path, monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    with closing(sqlite3.connect(people)) as connection:
        index = "SELECT rootpage FROM sqlite_schema WHERE name = 'hstl_embeddings_of_network'"
        ((page,),) = connection.execute(index).fetchall()
    with people.open("r+b") as file:
        file.seek((page - 1) * 8192)
        file.write(b"\x55" * 8192)
    with pytest.raises(GalleryError, match="is damaged"):
        Gallery(people)
    monkeypatch.setattr(opening, "CHECKED_SIZE", 0)
    with Gallery(people, network=network) as gallery, pytest.raises(GalleryError, match="is damaged"):
        gallery.check()


def test_without_sqlalchemy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"galleries need SQLAlchemy.*pip install 'hstl_fast\[recognition\]'"):
        Gallery(tmp_path / "people.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_that_is_down_is_said_without_the_password(impatient: None) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        GalleryError, match=r"postgresql://ada@127\.0\.0\.1:\d+/people: the database cannot be reached"
    ) as e:
        Gallery(f"postgresql://ada:geheim@127.0.0.1:{free_port()}/people")
    assert "geheim" not in str(e.value)


@pytest.mark.slow
def test_a_server_whose_lock_is_held_is_given_up(
    postgres_url: str, impatient: None, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_LOCK_SECONDS", 0.2)
    with Gallery(postgres_url, network=network) as holder, Gallery(postgres_url, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])

        def enrol_meanwhile(connection: Any) -> None:
            with pytest.raises(GalleryError, match="the gallery is locked by others"):
                gallery.rename("Ada", "Eve")

        holder._database.change(enrol_meanwhile)
        gallery.rename("Ada", "Eve")


def lock_timeout(connection: Any) -> str:
    return str(connection.exec_driver_sql("SHOW lock_timeout").scalar())


@pytest.mark.slow
def test_a_limit_of_locks_is_of_a_transaction_and_not_of_who_set_another(postgres_url: str) -> None:
    with Gallery(postgres_url) as gallery:
        assert gallery._database.read(lock_timeout) == gallery._database.change(lock_timeout) == "5s"
        engine = gallery._database._engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            assert lock_timeout(connection) == "0"
    with Gallery(f"{postgres_url}?options=-clock_timeout%3D90s") as gallery:
        assert gallery._database.change(lock_timeout) == "90s"


@pytest.mark.slow
def test_what_does_not_pass_is_said_at_once(postgres_server: Server) -> None:
    url = postgres_server.url("postgres")
    for other, message in (
        (url.replace(postgres_server.password, "geheim"), "password authentication failed"),
        (url.removesuffix("postgres") + "nothing", 'database "nothing" does not exist'),
    ):
        with pytest.raises(GalleryError, match=f"the database refuses .*{message}") as refused:
            Gallery(other)
        assert "geheim" not in str(refused.value)
        assert postgres_server.password not in str(refused.value)


@pytest.mark.slow
def test_a_server_that_comes_back_is_waited_for(
    postgres_server: Server, postgres_url: str, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE", dict.fromkeys(Trouble, 120.0))
    with Gallery(postgres_url, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
        postgres_server.stop()
        starting = threading.Thread(target=postgres_server.start)
        starting.start()
        gallery.enroll("Bob", [walk(2)])
        starting.join()
        assert [person.name for person in gallery.people()] == ["Ada", "Bob"]


@pytest.fixture
def second_try(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lose the connection right after the next commit, once."""
    from sqlalchemy import Connection
    from sqlalchemy.exc import OperationalError

    lost: list[str] = []
    commit = Connection._commit_impl

    class Lost(Exception):
        sqlstate = "08006"

    def lose(connection: Connection) -> None:
        commit(connection)
        if connection.get_execution_options().get("hstl_fast_writes") and not lost:
            lost.append("commit")
            raise OperationalError("COMMIT", {}, Lost("the connection was lost"))

    monkeypatch.setattr(Connection, "_commit_impl", lose)
    return lost


def test_a_change_whose_commit_was_lost_is_not_made_twice(
    url: str, network: Network, walk: WalkMaker, request: pytest.FixtureRequest
) -> None:
    with Gallery(url, network=network) as gallery:
        lost = request.getfixturevalue("second_try")
        made = gallery.enroll("Ada", [walk(1)])
        assert lost == ["commit"]
        assert gallery.recordings() == made


def test_a_full_disk_is_said_and_nothing_is_changed(
    people: Path, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database.open_file

    def full(path: Path) -> sqlite3.Connection:
        connection = real(path)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the size of the file instead
        return connection

    with Gallery(people, network=network) as gallery:
        monkeypatch.setattr(database, "open_file", full)
        with pytest.raises(GalleryError, match=r"people\.db has no room: the disk is full"):
            gallery.enroll("Bob", [walk(i, frames=30) for i in (2, 3)])
        monkeypatch.undo()
        assert [person.name for person in gallery.people()] == ["Ada"]
        assert gallery.check() == 1
