"""Packed files: any frames of any sequence, in any process, and what damage costs."""

import multiprocessing
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hstl_fast.data import Packed, Partition, open_packed, open_sequences, pack, verify_packed
from hstl_fast.data.chunks import CHUNK
from hstl_fast.data.pack_format import Contents, encode, load, schema
from hstl_fast.data.packed import CUT_OFF
from hstl_fast.data.verifying import DAMAGED_HEADER, DAMAGED_ROWS, DAMAGED_SEQUENCE, WRONG_DIGEST
from hstl_fast.silhouettes.errors import SilhouetteError
from tests.helpers.sequences import Drawn, drawn

pa = pytest.importorskip("pyarrow")
COUNT = 24


def truth(k: int) -> np.ndarray:
    return drawn(k, 1 + k * 7 % 50)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "pack.arrow"
    pack(Drawn(COUNT), path, part_size=5, workers=1)
    return path


@pytest.fixture(scope="module")
def packed(whole: Path) -> Packed:
    return open_packed(whole)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "copy.arrow"))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def contents_of(path: Path) -> Contents:
    with path.open("rb") as file:
        return load(file, str(path))


@pytest.mark.parametrize(
    "frames",
    [
        [0],
        [49],
        [15, 16],
        range(10, 40),
        range(16, 32),
        [3, 3, 40, 2, 2],
        [-1, 0, -50],
        range(49, -1, -1),
        [*range(7, 20), *range(22, 41), 9, -2],
        [],
    ],
    ids=str,
)
def test_reads_any_frames(packed: Packed, frames: Any) -> None:
    numbers = np.array(list(frames), dtype=np.intp)
    found = packed.read_frames(7, numbers)  # 50 frames
    assert np.array_equal(found, truth(7)[numbers])
    assert found.dtype == np.uint8
    assert found.flags.writeable


def test_reads_any_window(packed: Packed) -> None:
    for index in range(COUNT):
        for start in range(packed.num_frames(index)):
            window = np.arange(start, min(packed.num_frames(index), start + 30))
            assert np.array_equal(packed.read_frames(index, window), truth(index)[window])


@pytest.mark.parametrize("wrong", [50, -51])
def test_frames_that_are_not_there_are_refused(packed: Packed, wrong: int) -> None:
    with pytest.raises(IndexError, match=rf"frames: expected numbers below 50 in 001/nm-02/090, got {wrong}"):
        packed.read_frames(7, np.array([3, wrong]))
    with pytest.raises(IndexError, match=r"frames: expected an array \[n\], got shape \[1, 2\]"):
        packed.read_frames(7, np.array([[3, 4]]))
    with pytest.raises(IndexError):
        packed.read(COUNT)


def test_reads_only_the_chunks_that_are_needed(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = os.pread

    def counted(descriptor: int, size: int, begin: int) -> bytes:
        asked.append(size)
        return read(descriptor, size, begin)

    monkeypatch.setattr(os, "pread", counted)
    packed.read(7)
    (everything,) = asked
    asked.clear()
    packed.read_frames(7, np.arange(CHUNK, 2 * CHUNK))
    packed.read_frames(7, np.array([0, 49]))
    assert len(asked) == 3
    assert sum(asked) < everything + 10
    assert packed.num_frames(7) == 50
    assert len(asked) == 3


def first_pixels(packed: Packed, index: int) -> tuple[int, int]:
    return int(packed.read(index)[0].sum()), os.getpid()


def test_every_process_opens_the_file_for_itself(packed: Packed) -> None:
    expected = [int(truth(k)[0].sum()) for k in range(COUNT)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(first_pixels, [packed] * COUNT, range(COUNT)))
    assert [value for value, _ in found] == expected
    assert os.getpid() not in {pid for _, pid in found}
    restored = pickle.loads(pickle.dumps(packed))
    assert [first_pixels(restored, k)[0] for k in range(COUNT)] == expected
    assert (restored.items, restored.partition, restored.digest) == (packed.items, packed.partition, packed.digest)
    with ThreadPoolExecutor(4) as threads:
        assert [each[0] for each in threads.map(first_pixels, [restored] * COUNT, range(COUNT))] == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_new_interpreters_open_the_file(packed: Packed, method: str) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        found = list(pool.map(first_pixels, [packed] * 8, range(8)))
    assert [value for value, _ in found] == [int(truth(k)[0].sum()) for k in range(8)]


def test_a_file_that_is_replaced_stays_open_and_is_not_mixed_up(copy: Path) -> None:
    packed = open_packed(copy)
    pickled = pickle.dumps(packed)
    pack(Drawn(3), copy)
    assert np.array_equal(packed.read(20), truth(20))
    with pytest.raises(SilhouetteError, match="expected the packed file that was opened, got another one there"):
        pickle.loads(pickled).read(0)


def test_a_file_that_shrinks_while_it_is_open_is_an_error(copy: Path) -> None:
    packed = open_packed(copy)
    os.truncate(copy, copy.stat().st_size // 3)
    with pytest.raises(SilhouetteError, match=r"007?.* is damaged \(the file was cut short since it was opened\)"):
        packed.read(COUNT - 1)


def test_is_opened_like_any_data_set(whole: Path) -> None:
    sequences = open_sequences(whole)
    assert isinstance(sequences, Packed)
    assert len(sequences) == COUNT
    assert sequences.partition == Drawn(COUNT).partition
    divided = open_sequences(whole, partition=Partition(("000",), ("001", "002")))
    assert divided.partition == Partition(("000",), ("001", "002"))
    assert np.array_equal(divided.read(5), truth(5))
    some = sequences.subset([5, 2])
    assert np.array_equal(some.read_frames(1, np.array([4, 1])), truth(2)[[4, 1]])
    assert some.total_frames == len(truth(5)) + len(truth(2))


def test_other_readers_of_arrow_see_a_table(whole: Path) -> None:
    table = pa.ipc.open_file(str(whole)).read_all()
    assert table.column_names == ["name", "label", "type", "view", "num_frames", "frames"]
    row = table.slice(7, 1).to_pylist()[0]
    assert (row["name"], row["label"], row["num_frames"]) == ("001/nm-02/090", "001", 50)
    parts = [pa.Codec("lz4").decompress(chunk, size) for chunk, size in zip(row["frames"], [65536] * 3 + [8192])]
    assert np.array_equal(np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 64, 64), truth(7))
    for text in table.schema.metadata.values():
        text.decode()  # readers in other languages refuse metadata that is no UTF-8


def check_flipped(path: Path) -> int:
    """Open a file with one damaged byte: at most one sequence is lost, and named; how many."""
    packed = open_packed(path)
    assert packed.items == Drawn(COUNT).items
    errors = {}
    for k in range(COUNT):
        try:
            reading = packed.reading(k)
        except SilhouetteError as error:
            errors[packed.items[k].name] = str(error)
        else:
            assert np.array_equal(reading.silhouettes, truth(k))
            assert reading.left_out == Drawn(COUNT).reading(k).left_out
    assert len(errors) <= 1
    assert all(f"the sequence {name} is damaged (" in error for name, error in errors.items())
    assert [each.where for each in verify_packed(path) if each.reason == DAMAGED_SEQUENCE] == list(errors)
    return len(errors)


def check_cut(path: Path, length: int, contents: Contents) -> None:
    """Open a file that was cut short: the sequences that are whole are read, and the others are listed."""
    os.truncate(path, length)
    if length < contents.start:
        with pytest.raises(SilhouetteError, match="expected a packed file of hstl_fast, got "):
            open_packed(path)
        return
    packed = open_packed(path)
    missing = [each.where for each in packed.left_out]
    assert {each.reason for each in packed.left_out} <= {CUT_OFF}
    names = [item.name for item in contents.rows.items]
    assert names[: len(packed)] == list(packed.names)
    assert names[len(packed) :] == missing
    assert all(np.array_equal(packed.read(k), truth(k)) for k in range(len(packed)))
    found = verify_packed(path)
    assert [each.where for each in found if each.reason == CUT_OFF] == missing
    assert DAMAGED_HEADER in {each.reason for each in found}


def anywhere(size: int, count: int) -> list[int]:
    """Offsets in a file: its first and last bytes, and others."""
    edges = [0, 7, 11, 12, 13, 17, size - 12, size - 10, size - 1]
    return [*edges, *np.random.default_rng(count).integers(size, size=count).tolist()]


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_one_damaged_byte_costs_one_sequence(count: int, whole: Path, copy: Path) -> None:
    lost = 0
    for offset in anywhere(copy.stat().st_size, count):
        flip(copy, offset)
        lost += check_flipped(copy)
        flip(copy, offset)
    assert lost > count / 2
    assert copy.read_bytes() == whole.read_bytes()


def test_every_byte_of_the_header_may_be_damaged(whole: Path, copy: Path) -> None:
    content = whole.read_bytes()
    start, items = contents_of(whole).start, Drawn(COUNT).items
    for offset in [*range(8, 20), *range(20, start, 331)]:
        for bit in (0, 3, 6, 7):
            damaged = bytearray(content)
            damaged[offset] ^= 1 << bit
            copy.write_bytes(damaged)
            packed = open_packed(copy)
            assert (packed.items, packed.left_out) == (items, ())


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_file_cut_short_gives_what_is_whole(count: int, whole: Path, copy: Path) -> None:
    contents, size = contents_of(whole), whole.stat().st_size
    for length in [0, 5, 15, 16, 40, contents.start, size - 1, *anywhere(size, count)[-count:]]:
        shutil.copy(whole, copy)
        check_cut(copy, length, contents)


def test_the_end_of_a_file_is_enough(whole: Path, copy: Path) -> None:
    start = contents_of(whole).start
    with copy.open("r+b") as file:
        file.write(bytes(start))
    packed = open_packed(copy)
    assert all(np.array_equal(packed.read(k), truth(k)) for k in range(COUNT))
    with copy.open("r+b") as file:
        file.seek(-300, os.SEEK_END)
        file.write(bytes(300))
    with pytest.raises(SilhouetteError, match=r"copy\.arrow: expected a packed file of hstl_fast, got another file"):
        open_packed(copy)


def test_verifies(whole: Path, copy: Path) -> None:
    seen = []
    assert verify_packed(whole, progress=lambda *step: seen.append(step)) == ()
    assert seen[-1] == ("verifying", COUNT, COUNT)
    packed = open_packed(copy)
    for k in (4, 9):
        flip(copy, packed.place(k) + 40)
    found = verify_packed(copy)
    assert [(each.where, each.reason) for each in found] == [(packed.items[k].name, DAMAGED_SEQUENCE) for k in (4, 9)]
    assert all("the checksum of frames from 0 on is wrong" in each.detail for each in found)


def test_verifies_what_other_readers_see(copy: Path) -> None:
    # Names stand in the rows; those of the index are in base64.
    flip(copy, copy.read_bytes().index(b"005/nm-01"))
    (found,) = verify_packed(copy)
    assert found.reason == DAMAGED_ROWS
    assert found.detail.startswith("bytes from ")

    def forget(header: dict[str, Any], _: dict[str, Any]) -> None:
        header["parts"] = []

    rewritten(copy, forget)
    (found,) = verify_packed(copy)
    assert found.detail == "4 rows from 005/nm-01/000 on disagree with the index"


def test_verifies_bytes_that_mean_nothing(whole: Path, copy: Path) -> None:
    contents = contents_of(whole)
    end = contents.start + contents.header["bytes"]
    for offset in [contents.start + 3, end - 1, *np.linspace(contents.start, end - 1, 10).astype(int).tolist()]:
        flip(copy, offset)
        assert verify_packed(copy)
        flip(copy, offset)
    assert not verify_packed(copy)


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Write a file again with another header and index, and with right checksums, as somebody may who means harm."""
    contents = contents_of(path)
    header, rows = contents.header, contents.rows._asdict()
    change(header, rows)
    batches = pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all().to_batches()
    metadata = encode(header, contents.rows._replace(**rows))
    with pa.ipc.new_file(str(path), schema(metadata)) as writer:
        for batch in batches:
            writer.write_batch(batch)


def test_verifies_the_digest(copy: Path) -> None:
    rewritten(copy, lambda header, _: header.update(digest="sha256:0"))
    (found,) = verify_packed(copy)
    assert (found.reason, found.detail[:33]) == (WRONG_DIGEST, "expected sha256:0, got sha256:" + found.detail[30:33])


def changes() -> Iterator[Any]:
    def header(**values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        return lambda header, _: header.update(values)

    def rows(name: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        return lambda _, rows: rows.update({name: value(rows[name])})

    def first(value: int) -> Callable[[Any], Any]:
        return lambda array: np.array([value, *array[1:]], array.dtype)

    yield pytest.param(header(format=2), "format 2, but this version of hstl_fast reads format 1", id="newer")
    yield pytest.param(header(format="x"), "its header is none", id="no-format")
    yield pytest.param(header(chunk=10**9), "chunks of 1000000000 frames by lz4", id="chunk")
    yield pytest.param(header(codec="brotli"), "chunks of 16 frames by brotli", id="codec")
    yield pytest.param(header(sequences=3), "its header and its index disagree", id="count")
    yield pytest.param(header(digest=None), "its header has no digest", id="digest")
    yield pytest.param(header(notes=[1]), "its header has no notes", id="notes")
    yield pytest.param(header(partition={"train": [1]}), "its partition is none", id="partition")
    yield pytest.param(header(partition={"train": [1], "test": []}), "its partition is none", id="labels")
    yield pytest.param(header(left_out=[["a"]]), "its list of what was left out is none", id="left-out")
    yield pytest.param(header(bytes=0), "places a sequence behind the end", id="behind")
    yield pytest.param(rows("offsets", first(-(2**62))), "places one before the beginning", id="before")
    yield pytest.param(rows("offsets", first(2**62)), "places a sequence behind the end", id="far")
    yield pytest.param(rows("items", lambda items: (items[1], *items[1:])), "names a sequence twice", id="twice")


@pytest.mark.parametrize(("change", "message"), list(changes()))
def test_headers_that_lie_are_refused(change: Any, message: str, copy: Path) -> None:
    rewritten(copy, change)
    with pytest.raises(SilhouetteError, match=message):
        open_packed(copy)


def test_an_index_that_lies_gives_errors(copy: Path) -> None:
    def change(_: dict[str, Any], rows: dict[str, Any]) -> None:
        rows["left_out"] = ["[[", *rows["left_out"][1:]]
        rows["offsets"] = np.array([*rows["offsets"][:2], 3, *rows["offsets"][3:]])
        rows["sizes"] = np.array([*rows["sizes"][:-1], 2**32 - 1], np.uint32)

    rewritten(copy, change)
    packed = open_packed(copy)
    assert [each.reason for each in packed.left_out] == [CUT_OFF]  # a chunk of 4 GB
    for k, message in ((0, "is no JSON"), (2, "checksum")):
        with pytest.raises(SilhouetteError, match=message):
            packed.read(k)


@pytest.mark.parametrize("size", [10**8, 5])
def test_a_chunk_that_lies_does_no_harm(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compress(frames: np.ndarray) -> Iterator[bytes]:
        for _ in range(0, len(frames), CHUNK):
            yield pa.Codec("lz4").compress(bytes(size), asbytes=True)

    monkeypatch.setattr("hstl_fast.data.parts.compress", compress)
    pack(Drawn(5), tmp_path / "pack.arrow")
    packed = open_packed(tmp_path / "pack.arrow")
    for k in range(5):
        for frame in {0, packed.num_frames(k) - 1}:
            # LZ4 does not say where a chunk ends too early: what follows is whatever the memory held.
            if size < 4096:
                assert not packed.read_frames(k, np.array([frame]))[0, 0, : size if frame == 0 else 0].any()
                continue
            with pytest.raises(SilhouetteError, match=rf"the sequence {packed.items[k].name} is damaged \("):
                packed.read_frames(k, np.array([frame]))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"text", b"text" * 100, pickle.dumps([1, 2]), bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(SilhouetteError, match="file: expected a packed file of hstl_fast, got another file"):
            open_packed(path)
    with pa.ipc.new_file(str(path), pa.schema([("a", pa.int8())])):
        pass
    with pytest.raises(SilhouetteError, match="an Arrow file without the header of a packed file"):
        open_packed(path)
    with pytest.raises(SilhouetteError, match="expected a packed file, got a folder"):
        open_packed(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_packed(tmp_path / "missing")


def test_a_missing_library_is_named(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = re.escape("packed files need pyarrow, which could not be imported")
    for use in (lambda: open_packed(whole), lambda: pack(Drawn(3), tmp_path / "pack.arrow")):
        with pytest.raises(ImportError, match=message + r".*; install it with: pip install 'hstl_fast\[data\]'"):
            use()
    assert not list(tmp_path.iterdir())
