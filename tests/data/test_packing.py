"""Packing: the same file from any number of processes and after any interruption, or the earlier file."""

import contextlib
import errno
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hstl_fast.data import merging, open_packed, open_sequences, pack, verify_packed
from hstl_fast.data.packing import parts_folder
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.io import Reading
from hstl_fast.silhouettes.left_out import LeftOut
from tests.helpers.sequences import Drawn, Given, drawn

pytest.importorskip("pyarrow")
FORK = multiprocessing.get_context("fork")
COUNT = 22
SIZE = 4


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that packing `Drawn(COUNT)` in parts of `SIZE` gives."""
    path = tmp_path_factory.mktemp("packed") / "pack.arrow"
    pack(Drawn(COUNT), path, workers=1, part_size=SIZE)
    return path.read_bytes()


def run(function: Callable[[], object]) -> Any:
    """Run a function in a forked process; its process."""
    process = FORK.Process(target=function)
    process.start()
    return process


def killed(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def records(path: Path) -> list[Path]:
    return sorted(parts_folder(path).glob("0*.json"))


@contextlib.contextmanager
def full_after(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_gives_back_what_was_read(tmp_path: Path) -> None:
    sequences = Drawn(COUNT, unreadable=[7], left_out=[LeftOut("stray.png", "stray file")])
    packing = pack(sequences, tmp_path / "pack.arrow", part_size=SIZE, workers=1)
    packed = open_packed(tmp_path / "pack.arrow")
    kept = [k for k in range(COUNT) if k != 7]
    assert packed.items == tuple(sequences.items[k] for k in kept)
    for index, k in enumerate(kept):
        reading = packed.reading(index)
        assert np.array_equal(reading.silhouettes, drawn(k, 1 + k * 7 % 50))
        assert reading.silhouettes.flags.writeable
        assert reading.left_out == sequences.reading(k).left_out
        assert packed.num_frames(index) == len(reading.silhouettes)
    assert (packed.partition, packed.notes) == (sequences.partition, ("a note",))
    assert (packed.layout, packed.source_layout) == ("packed", "casia-b")
    unreadable = LeftOut(
        sequences.items[7].name, "sequence that cannot be read", "file-7.pkl: expected an array, got none"
    )
    assert packed.left_out == (LeftOut("stray.png", "stray file"), unreadable)
    assert packing.left_out == (
        *(sequences.reading(3).left_out),
        unreadable,
        *(each for k in range(8, COUNT) for each in sequences.reading(k).left_out),
    )
    assert (packing.sequences, packing.frames) == (COUNT - 1, packed.total_frames)
    assert (packing.digest, packing.num_bytes) == (packed.digest, packed.num_bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["pack.arrow"]


@pytest.mark.parametrize(
    "start_method",
    ["fork", pytest.param("spawn", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow)],
)
def test_processes_do_not_matter(start_method: str, expected: bytes, tmp_path: Path) -> None:
    seen = []
    pack(
        Drawn(COUNT),
        tmp_path / "pack.arrow",
        workers=3,
        part_size=SIZE,
        start_method=start_method,
        progress=lambda *step: seen.append(step),
    )
    assert (tmp_path / "pack.arrow").read_bytes() == expected
    steps = [step for step in seen if step[0] == "packing"]
    assert [steps[0], steps[-1]] == [("packing", 0, COUNT), ("packing", COUNT, COUNT)]
    assert [done for _, done, _ in steps] == sorted({done for _, done, _ in steps})


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    packings = [
        pack(Drawn(9), tmp_path / "a", part_size=4),
        pack(Drawn(9), tmp_path / "b", part_size=7),
        pack(Drawn(10), tmp_path / "c"),
    ]
    assert packings[0].digest == packings[1].digest != packings[2].digest
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()
    assert pack(open_packed(tmp_path / "a"), tmp_path / "again").digest == packings[0].digest


def interrupt(path: Path, at: int, **options: Any) -> None:
    with pytest.raises(ImportError, match="the reader is not installed"):
        pack(Drawn(COUNT, stop_at=at), path, part_size=SIZE, workers=1, **options)


def test_goes_on_after_an_interruption(expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    interrupt(path, at=13)
    assert not path.exists()
    assert len(records(path)) == 3
    packing = pack(Drawn(COUNT), path, part_size=SIZE)
    assert (packing.reused, packing.notes) == (12, ())
    assert packing.reused_frames == sum(1 + k * 7 % 50 for k in range(12))
    assert path.read_bytes() == expected
    assert not parts_folder(path).exists()


def test_other_sequences_or_options_start_anew_and_say_so(expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    interrupt(path, at=13)
    packing = pack(Drawn(COUNT - 1), path, part_size=SIZE)
    assert (packing.reused, packing.sequences) == (0, COUNT - 1)
    assert packing.notes == ("an interrupted run was of other sequences: what it had done is discarded",)
    interrupt(path, at=13)
    packing = pack(Drawn(COUNT), path, part_size=SIZE, strict=False, workers=1)
    assert (packing.reused, path.read_bytes()) == (12, expected)
    interrupt(path, at=13)
    packing = pack(Drawn(COUNT), path, part_size=SIZE + 1)
    assert packing.notes == ("an interrupted run was of other options: what it had done is discarded",)


def test_damaged_parts_are_made_again(expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    interrupt(path, at=13)
    first, second, third = records(path)
    first.write_text(first.read_text()[:-5])
    stream = bytearray(second.with_suffix(".arrows").read_bytes())
    stream[len(stream) // 2] ^= 1
    second.with_suffix(".arrows").write_bytes(stream)
    third.write_text(json.dumps({"rows": 3}))
    assert pack(Drawn(COUNT), path, part_size=SIZE).reused == 0
    assert path.read_bytes() == expected


def test_files_that_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(6):
        (tmp_path / "in" / f"{k:03}").mkdir(parents=True)
        np.save(tmp_path / "in" / f"{k:03}" / "nm-01.npy", drawn(k, 9))
    path, sequences = tmp_path / "pack.arrow", open_sequences(tmp_path / "in", "folders")
    with monkeypatch.context() as patch:
        patch.setattr("hstl_fast.data.packing.merge", lambda *_: {}["stopped before the end"])
        with pytest.raises(KeyError):
            pack(sequences, path, part_size=2)
    np.save(tmp_path / "in" / "003" / "nm-01.npy", drawn(33, 11))
    packing = pack(sequences, path, part_size=2)
    assert packing.notes == ("2 sequences of an interrupted run are read again, since files of theirs have changed",)
    assert packing.reused == 4
    assert np.array_equal(open_packed(path).read(3), drawn(33, 11))


def slowly(path: Path, delay: float = 0.01, pids: Path | None = None) -> None:
    pack(Drawn(COUNT, delay=delay, pids=pids), path, workers=2, part_size=SIZE)


def test_goes_on_after_being_killed(expected: bytes, tmp_path: Path) -> None:
    path, pids = tmp_path / "pack.arrow", tmp_path / "pids"
    pids.mkdir()
    path.write_bytes(b"earlier")
    process = run(lambda: slowly(path, 0.03, pids))
    wait_for(lambda: len(records(path)) >= 2)
    killed(process)
    assert path.read_bytes() == b"earlier"
    wait_for(lambda: not any(is_alive(int(each.name)) for each in pids.iterdir()))
    assert pack(Drawn(COUNT), path, part_size=SIZE).reused >= 2 * 2
    assert path.read_bytes() == expected


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_goes_on_after_being_killed_while_the_file_is_put_together(expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"

    def kill_myself(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def pack_and_die() -> None:
        merging._check_places = kill_myself  # after the last byte, before the file is renamed
        slowly(path, 0)

    process = run(pack_and_die)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not path.exists()
    assert (parts_folder(path) / "merged.tmp").stat().st_size == len(expected)
    assert pack(Drawn(COUNT), path, part_size=SIZE).reused == COUNT
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_goes_on_after_being_killed_at_any_moment(expected: bytes, tmp_path: Path) -> None:
    path, draw = tmp_path / "pack.arrow", np.random.default_rng(5)
    start = time.monotonic()
    process = run(lambda: slowly(path))
    process.join()
    whole = time.monotonic() - start
    for moment in np.sort(draw.random(10)):
        path.unlink(missing_ok=True)
        shutil.rmtree(parts_folder(path), ignore_errors=True)
        process = run(lambda: slowly(path))
        time.sleep(moment * whole)
        killed(process)
        assert not path.exists() or path.read_bytes() == expected
        pack(Drawn(COUNT), path, part_size=SIZE)
        assert path.read_bytes() == expected
        assert not verify_packed(path)


def test_two_at_once_are_refused(expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    first = run(lambda: slowly(path, 0.03))
    wait_for(lambda: bool(records(path)))
    with pytest.raises(
        BlockingIOError, match=r"pack\.arrow: another process packs to this file; wait for it, or choose"
    ):
        pack(Drawn(COUNT), path, part_size=SIZE)
    first.join()
    assert first.exitcode == 0
    assert path.read_bytes() == expected


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_the_earlier_file(earlier: bool, expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    if earlier:
        path.write_bytes(b"earlier")
    # At first no part fits, then parts fit and the whole file does not.
    for limit, done in ((2000, 0), (len(expected) * 2 // 3, 6)):
        with full_after(limit), pytest.raises(OSError, match="while packing") as caught:
            pack(Drawn(COUNT), path, part_size=SIZE, workers=1)
        assert caught.value.errno == errno.EFBIG
        assert caught.value.filename == str(path)
        assert ("; the earlier file is unchanged; " in caught.value.strerror) == earlier
        assert f"{parts_folder(path)} keeps what is done" in caught.value.strerror
        assert len(records(path)) == done
        assert not list(parts_folder(path).glob("*.tmp"))
        assert path.exists() == earlier
    assert not earlier or path.read_bytes() == b"earlier"
    assert pack(Drawn(COUNT), path, part_size=SIZE).reused == COUNT
    assert path.read_bytes() == expected


def test_a_full_disk_is_noticed_in_worker_processes(tmp_path: Path) -> None:
    with full_after(2000), pytest.raises(OSError, match=r"File too large while packing; .*goes on from there"):
        pack(Drawn(COUNT), tmp_path / "pack.arrow", part_size=SIZE, workers=2)


def test_a_killed_worker_is_named(expected: bytes, tmp_path: Path) -> None:
    class Dying(Drawn):
        def reading(self, index: int) -> Any:
            if index == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().reading(index)

    path = tmp_path / "pack.arrow"
    with pytest.raises(RuntimeError, match="a worker process was killed, perhaps for want of memory"):
        pack(Dying(COUNT), path, part_size=SIZE, workers=2)
    pack(Drawn(COUNT), path, part_size=SIZE)
    assert path.read_bytes() == expected


@pytest.mark.parametrize("sequences", [Drawn(COUNT, unreadable=[9]), Drawn(COUNT)])
@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops(sequences: Drawn, workers: int, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    path.write_bytes(b"earlier")
    with pytest.raises(SilhouetteError, match=r"expected to leave out nothing, got 00[0-5]/nm-0[12]/0[09]0: "):
        pack(sequences, path, part_size=SIZE, strict=True, workers=workers)
    assert path.read_bytes() == b"earlier"


def test_what_is_no_sequence_is_left_out(tmp_path: Path) -> None:
    good = drawn(0, 3)
    wrong = [good[:0], good[0], good.astype(float), good[:, :, 10:-10]]
    packing = pack(Given([good, *wrong]), tmp_path / "pack.arrow")
    assert packing.sequences == 1
    assert [each.detail.split(", got ")[1] for each in packing.left_out] == [
        "uint8 [0, 64, 64]",
        "uint8 [64, 64]",
        "float64 [3, 64, 64]",
        "uint8 [3, 64, 44]",
    ]


def test_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    sequences = Drawn(2)
    sequences.items = (sequences.items[0], sequences.items[1]._replace(name="002/caf\udce9"))
    packing = pack(sequences, tmp_path / "pack.arrow")
    assert [(each.where, each.reason) for each in packing.left_out] == [
        (r"002/caf\udce9", "name that is no Unicode text")
    ]


def test_nothing_to_pack_is_said(tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    with pytest.raises(ValueError, match="sequences: expected at least one to pack, got none in memory"):
        pack(Drawn(0), path)
    with pytest.raises(
        SilhouetteError, match=r"got 3 of which none can be read; the first is 000/nm-01/000: file-0\.pkl"
    ):
        pack(Drawn(3, unreadable=range(3)), path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["workers", "part_size"])
def test_arguments_out_of_range_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected 1 or more, got 0"):
        pack(Drawn(3), tmp_path / "pack.arrow", **{name: 0})  # type: ignore[arg-type]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="expected a file to write, got a folder"):
        pack(Drawn(3), tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        pack(Drawn(3), tmp_path / "missing" / "pack.arrow")
    assert caught.value.filename == str(tmp_path / "missing" / "pack.arrow")


def test_a_link_and_permissions_stay(expected: bytes, tmp_path: Path) -> None:
    real, link = tmp_path / "real.arrow", tmp_path / "link.arrow"
    real.write_bytes(b"earlier")
    real.chmod(0o640)
    link.symlink_to("real.arrow")
    pack(Drawn(COUNT), link, part_size=SIZE)
    assert link.is_symlink()
    assert real.read_bytes() == expected
    assert real.stat().st_mode & 0o777 == 0o640


class Noise(Drawn):
    """Sequences that cannot be compressed."""

    def reading(self, index: int) -> Any:
        draw = np.random.default_rng(index)
        return super().reading(0)._replace(silhouettes=draw.integers(256, size=(400, 64, 64), dtype=np.uint8))


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_data(count: int, tmp_path: Path) -> None:
    def resident() -> int:
        """Bytes of memory that no file stands behind."""
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024

    def measure(sender: Any) -> None:
        before, most = resident(), 0

        def watch(*_: object) -> None:
            nonlocal most
            most = max(most, resident() - before)

        pack(Noise(count), tmp_path / "pack.arrow", workers=1, part_size=count // 2, progress=watch)
        sender.send(most)

    receiver, sender = FORK.Pipe(duplex=False)
    process = run(lambda: measure(sender))
    process.join()
    assert (tmp_path / "pack.arrow").stat().st_size > count * 400 * 4096
    # The batches of 8 MB, copies of them, and a sequence of 1.6 MB.
    assert receiver.recv() < 60e6


@pytest.mark.slow
def test_very_long_sequences(tmp_path: Path) -> None:
    frames = np.tile(drawn(0, 50), (2000, 1, 1))
    pack(Given([frames, drawn(1, 5)]), tmp_path / "pack.arrow")
    packed = open_packed(tmp_path / "pack.arrow")
    assert packed.num_frames(0) == 100_000
    assert np.array_equal(packed.read(0), frames)
    assert np.array_equal(packed.read_frames(0, np.arange(99_990, 100_000)), frames[-10:])


def write_sequences(root: Path, count: int) -> None:
    for k in range(count):
        folder = root / f"{k:03}" / "nm-01" / "090"
        folder.mkdir(parents=True)
        (folder / "090.pkl").write_bytes(pickle.dumps(np.array(drawn(k, 6))))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_is_lost_leaves_the_earlier_file(workers: int, tmp_path: Path) -> None:
    root, path = tmp_path / "data", tmp_path / "pack.arrow"
    write_sequences(root, 12)
    sequences = open_sequences(root)
    pack(sequences, path)
    earlier = path.read_bytes()
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="expected to open the sequence ") as caught:
        pack(sequences, path, part_size=SIZE, workers=workers)
    assert "; the earlier file is unchanged; " in str(caught.value)
    assert path.read_bytes() == earlier
    (tmp_path / "elsewhere").rename(root)
    assert pack(sequences, path, part_size=SIZE).sequences == 12


def test_frames_of_a_lost_source_are_not_left_out(tmp_path: Path) -> None:
    class Losing(Drawn):
        def reading(self, index: int) -> Reading:
            return Reading(drawn(0, 9), (LeftOut(str(tmp_path / "gone.png"), "frame that cannot be read"),))

    with pytest.raises(OSError, match="expected to open the sequence 000/nm-01/000, got No such file"):
        pack(Losing(3), tmp_path / "pack.arrow")
    assert not records(tmp_path / "pack.arrow")


def test_folders_that_were_lost_are_not_left_out(tmp_path: Path) -> None:
    for detail, is_lost in (("Permission denied", False), ("Input/output error", True)):
        sequences = Drawn(3, left_out=[LeftOut("data/001", "folder that cannot be opened", detail)])
        with pytest.raises(OSError, match="expected to open all folders") if is_lost else contextlib.nullcontext():
            pack(sequences, tmp_path / "pack.arrow")


def test_more_than_a_tenth_that_cannot_be_read_is_refused(expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    path.write_bytes(b"earlier")
    assert pack(Drawn(COUNT, unreadable=range(4)), tmp_path / "few.arrow").sequences == COUNT - 4
    with pytest.raises(SilhouetteError, match="for a tenth at most, got 5 of 22 that cannot be read"):
        pack(Drawn(COUNT, unreadable=range(5)), path, part_size=SIZE)
    assert path.read_bytes() == b"earlier"
    again = pack(Drawn(COUNT), path, part_size=SIZE)
    assert again.reused == COUNT - 2 * SIZE
    assert path.read_bytes() == expected
