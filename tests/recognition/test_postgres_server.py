"""The server that tests of a shared gallery run on."""

import pytest

from tests.helpers.postgres import Server


@pytest.mark.slow
def test_databases_survive_a_killed_server(postgres_server: Server, postgres_url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 17 AS number")
    postgres_server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url, connect_timeout=2)
    postgres_server.start()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT number, current_setting('fsync') FROM numbers").fetchall() == [(17, "on")]
