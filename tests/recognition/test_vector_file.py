"""The cache of a gallery's embeddings: it follows the database, whatever was killed, damaged or done at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.recognition import vector_file
from hstl_fast.recognition.vector_file import VectorFile
from tests.helpers.processes import run_two

PARTS, CHANNELS = 3, 20


def embedding(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal((PARTS, CHANNELS), dtype=np.float32)


class Database:
    """Numbers of embeddings, and those that were asked for."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)
        self.asked: list[int] = []

    def listed(self) -> NDArray[np.int64]:
        return np.array(self.ids, np.int64)

    def fetch(self, ids: list[int]) -> Iterator[tuple[int, bytes]]:
        self.asked += ids
        for number in reversed(ids):
            if number in self.ids:
                yield number, embedding(number).tobytes()

    def asked_since(self) -> list[int]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few embeddings be several pieces."""
    monkeypatch.setattr(vector_file, "_AT_ONCE", 3 * PARTS * CHANNELS * 4)


def opened(folder: Path, gallery: str = "a") -> VectorFile:
    return VectorFile(folder / "vectors", PARTS, CHANNELS, gallery)


def assert_follows(file: VectorFile, database: Database) -> NDArray[np.float32]:
    vectors = file.synchronise(database.listed, database.fetch)
    assert vectors.shape == (len(database.ids), PARTS, CHANNELS)
    assert vectors.dtype == np.float32
    assert not vectors.flags.writeable
    for row, number in zip(vectors, database.ids, strict=True):
        np.testing.assert_array_equal(row, embedding(number))
    return vectors


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "vectors").iterdir())


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    database, file = Database(1, 2, 3, 5, 8, 13, 21), opened(tmp_path)
    first = assert_follows(file, database)
    assert isinstance(first, np.memmap)
    assert database.asked_since() == database.ids
    assert assert_follows(file, database) is first
    database.ids += [30, 31, 32, 33]
    assert_follows(file, database)
    assert database.asked_since() == [30, 31, 32, 33]
    assert_follows(opened(tmp_path), database)
    assert database.asked_since() == []
    assert len(files(tmp_path)) == 3
    for name in files(tmp_path):
        assert stat.S_IMODE((tmp_path / "vectors" / name).stat().st_mode) == 0o600


def test_what_is_removed_is_in_no_file(tmp_path: Path) -> None:
    database, file = Database(*range(1, 12)), opened(tmp_path)
    before = assert_follows(file, database)
    database.ids = [1, 2, 4, 5, 6, 9, 10]
    assert_follows(file, database)
    assert database.asked_since() == list(range(1, 12))
    for row, number in zip(before, range(1, 12), strict=True):  # a map stays whole
        np.testing.assert_array_equal(row, embedding(number))
    whole = b"".join((tmp_path / "vectors" / name).read_bytes() for name in files(tmp_path))
    assert [number for number in range(1, 12) if embedding(number).tobytes() in whole] == database.ids
    database.ids = []
    assert_follows(file, database)
    database.ids = [40]
    assert_follows(file, database)
    assert len(files(tmp_path)) == 3


def test_numbers_that_come_late_stand_in_order(tmp_path: Path) -> None:
    database, file = Database(1, 2, 5, 6), opened(tmp_path)
    before = assert_follows(file, database)
    database.asked_since()
    database.ids = [1, 2, 4, 5, 6, 7]
    assert_follows(file, database)
    assert database.asked_since() == [4, 5, 6, 7]
    np.testing.assert_array_equal(before[2], embedding(5))


def test_another_gallery_or_shape_begins_anew(tmp_path: Path) -> None:
    database = Database(1, 2, 3)
    assert_follows(opened(tmp_path), database)
    database.asked_since()
    assert_follows(opened(tmp_path, "b"), database)
    assert database.asked_since() == [1, 2, 3]
    other = VectorFile(tmp_path / "vectors", 1, 2, "b")
    assert other.synchronise(lambda: np.array([7]), lambda ids: [(7, bytes(8))]).shape == (1, 1, 2)


def test_what_is_deleted_meanwhile_is_left_out(tmp_path: Path) -> None:
    database, file = Database(*range(1, 9)), opened(tmp_path)

    def fetch(ids: list[int]) -> Iterator[tuple[int, bytes]]:
        if 5 in database.ids:
            database.ids.remove(5)
        yield from database.fetch(ids)

    assert file.synchronise(database.listed, fetch).shape[0] == 7
    assert_follows(file, database)
    with pytest.raises(ValueError, match="embedding 9 must be in the database, which lists it; it was not found"):
        file.synchronise(lambda: np.array([1, 9]), lambda ids: [])


def flip(path: Path, at: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[at] ^= 16
    path.write_bytes(whole)


def values_of(folder: Path) -> Path:
    (path,) = folder.glob("vectors-*")
    return path


DAMAGE: dict[str, Callable[[Path], object]] = {
    "header": lambda folder: flip(folder / "index", 9),
    "identity": lambda folder: flip(folder / "index", 35),
    "number": lambda folder: flip(folder / "index", 64 + 16 * 4),
    "checksum": lambda folder: flip(folder / "index", 64 + 16 * 4 + 9),
    "place": lambda folder: (folder / "index").write_bytes(
        (lambda w: w[:80] + w[96:])((folder / "index").read_bytes())
    ),
    "values": lambda folder: flip(values_of(folder), 999),
    "short index": lambda folder: os.truncate(folder / "index", 30),
    "torn index": lambda folder: os.truncate(folder / "index", 64 + 16 * 3 + 5),
    "empty index": lambda folder: os.truncate(folder / "index", 0),
    "foreign index": lambda folder: (folder / "index").write_text(
        "somebody's notes, which are long enough for a header" * 9
    ),
    "short values": lambda folder: os.truncate(values_of(folder), 1000),
    "torn values": lambda folder: values_of(folder).open("ab").write(bytes(77)),
    "no values": lambda folder: values_of(folder).unlink(),
    "no index": lambda folder: (folder / "index").unlink(),
    "no folder": lambda folder: subprocess.run(["rm", "-r", folder], check=True),
    "left-over values": lambda folder: (folder / "vectors-00.f32").write_bytes(bytes(99)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_mended(tmp_path: Path, damage: str) -> None:
    database, file = Database(*range(3, 12)), opened(tmp_path)
    assert_follows(file, database)
    DAMAGE[damage](tmp_path / "vectors")
    assert_follows(opened(tmp_path), database)
    database.ids += [20, 21]
    assert_follows(file, database)
    assert len(files(tmp_path)) == 3


def test_bad_embeddings_are_refused(tmp_path: Path) -> None:
    file = opened(tmp_path)
    for values, message in (
        (bytes(8), "embedding 4 must have 3 x 20 values float32, 240 bytes; got 8 bytes"),
        (embedding(0).tobytes()[:-4] + np.float32(np.nan).tobytes(), "embedding 4 must be finite; got NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            file.synchronise(lambda: np.array([4]), lambda ids, values=values: [(4, values)])
    with pytest.raises(ValueError, match="ids must return numbers of embeddings, 0 or more, in increasing order"):
        file.synchronise(lambda: np.array([4, 4]), lambda ids: [])
    assert_follows(file, Database(4, 5))


WRITER = """
import sys
from pathlib import Path
import numpy as np
from hstl_fast.recognition import vector_file
from tests.recognition.test_vector_file import Database, assert_follows, opened
vector_file._AT_ONCE = 3 * 240
database = Database(*range(1, int(sys.argv[1])))
def fetch(ids):
    yield from database.fetch(ids)
    print(ids[-1], flush=True)
opened(Path(sys.argv[2])).synchronise(database.listed, fetch)
"""


@pytest.mark.slow
def test_a_killed_writer_loses_what_it_was_at(tmp_path: Path) -> None:
    database = Database(*range(1, 400))
    for after in (1, 9, 30, 50):
        command = [sys.executable, "-c", WRITER, "400", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            fetched = [int(writer.stdout.readline()) for _ in range(after)][-1]
            writer.send_signal(signal.SIGKILL)
        database.ids = list(range(1, fetched))
        assert_follows(opened(tmp_path), database)
        assert len(database.asked_since()) <= 3
        database.ids = database.ids[::2]  # a new file, which the next writer finds
        assert_follows(opened(tmp_path), database)
        database.asked_since()


AT_ONCE = """
import sqlite3
import sys
from pathlib import Path
import numpy as np
from tests.recognition.test_vector_file import embedding, opened
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
database = sqlite3.connect(folder / "ids.db", isolation_level=None, timeout=60)
file, random, seen = opened(folder), np.random.default_rng(rank), []
def listed():
    seen[:] = [number for number, in database.execute("SELECT id FROM ids ORDER BY id")]
    return np.array(seen, np.int64)
def fetch(ids):
    return [(number, embedding(number).tobytes()) for number in ids]
for turn in range(60):
    database.execute("INSERT INTO ids DEFAULT VALUES")
    if random.random() < 0.3:
        database.execute("DELETE FROM ids WHERE id = ?", [int(random.choice(seen or [1]))])
    vectors = file.synchronise(listed, fetch)
    assert len(vectors) == len(seen)
    for row, number in zip(vectors, seen):
        assert (row == embedding(number)).all()
print(len(seen))
"""


@pytest.mark.slow
def test_two_processes_synchronise_at_once(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ids.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE ids (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        for printed in run_two(AT_ONCE, tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"}):
            assert int(printed) > 20
        ids = [number for (number,) in database.execute("SELECT id FROM ids ORDER BY id")]
    database = Database(*ids)
    assert_follows(opened(tmp_path), database)
    assert len(files(tmp_path)) == 3


def test_progress_counts_embeddings(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    database = Database(*range(10))
    opened(tmp_path).synchronise(database.listed, database.fetch, lambda *call: calls.append(call))
    assert calls == [("copying embeddings", done, 10) for done in (0, 3, 6, 9, 10)]
