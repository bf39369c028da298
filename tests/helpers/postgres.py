"""A PostgreSQL server for tests: started at the first use in a process of tests, ended with it."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# The places where Debian, macOS and others keep the programs of a server; the first folder found is taken.
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
# The shell ends the server as soon as the process that started it is gone, however that ended.
KEEPER = '"$@" & server=$!; read _; kill -QUIT $server; wait $server'
# Changes are written through to the disk (fsync stays on), so that the server is that of a user, but for its size.
SETTINGS = ("shared_buffers=16MB", "max_connections=40", "log_min_messages=fatal")
# A server is ready within so many seconds even on a busy machine.
READY = 60.0


class Server:
    """A server in a temporary folder, which listens on a free port of 127.0.0.1 and on a Unix socket in the folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.password = programs, folder, secrets.token_hex(8)
        # The server refuses to run as root.
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(folder, "postgres", "postgres")
        secret = folder / "password"
        secret.write_text(f"{self.password}\n")
        secret.chmod(0o644)  # the folder itself is private
        command = [programs / "initdb", "--no-sync", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}"]
        command += ["--encoding=UTF8", "--locale=C", "-D", folder / "data"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **self._as)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [part for setting in SETTINGS for part in ("-c", setting)]
        server = [self.programs / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port)]
        command = ["sh", "-c", KEEPER, "sh", *server, "-k", self.folder, *settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder, **self._as
            )
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        end = time.monotonic() + READY
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "the PostgreSQL server did not become ready"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server as a crash would; its databases stay."""
        assert self._process is not None
        self._process.communicate()
        self._process = None

    def empty_database(self) -> str:
        """The URL of an empty database, with user name and password; what it had before is gone."""
        import psycopg

        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        )
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(others, [connection.info.backend_pid])
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url("postgres")

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def programs() -> Path:
    """The folder of the server's programs; the test is skipped with a reason where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += [folder for place in PLACES for folder in sorted(Path("/").glob(place[1:]), reverse=True)]
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres", "pg_isready")):
            return folder
    pytest.skip("no PostgreSQL server program: initdb is neither on PATH nor where Debian installs it")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A running server that the tests of a process share; a test that stops it starts it again."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder_of_programs = programs()
    if os.geteuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        pytest.skip("a PostgreSQL server does not run as root, and there is no user postgres")
    # The path of a Unix socket holds 107 bytes: less than some temporary folders of pytest have.
    folder = Path(tempfile.mkdtemp(prefix="hstl_fast-pg-", dir="/tmp"))
    server = None
    try:
        server = Server(folder_of_programs, folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """The URL of an empty database, which no other test uses at the same time."""
    return postgres_server.empty_database()
