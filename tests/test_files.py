"""Atomic writes: files and folders appear complete, where they were asked for, and keep links and permissions."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hstl_fast import files
from hstl_fast.files import atomic_file, atomic_folder, remove_abandoned


def write(path: Path) -> None:
    with atomic_file(path) as draft:
        draft.write_text("new")


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(Path("far") / "real")
    write(link)
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "link", "real"]


def test_a_link_to_nothing_gets_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("mode", [0o664, 0o600, 0o755])
def test_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == mode


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    write(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    folder, pipe, loop = tmp_path / "folder", tmp_path / "pipe", tmp_path / "loop"
    folder.mkdir()
    os.mkfifo(pipe)
    loop.symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    for path in (folder, pipe, loop):
        with pytest.raises(OSError, match=f"{path}: expected a file to write, got "):
            write(path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_file(path) as draft:
        draft.write_text(3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write_atomically", [atomic_file, atomic_folder])
def test_an_unwritable_folder_is_an_error_about_the_path(
    write_atomically: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(tempfile._os, "mkdir", refuse)  # type: ignore[attr-defined]
    with pytest.raises(PermissionError) as caught, write_atomically(tmp_path / "a.onnx"):
        pass
    assert str(caught.value) == f"[Errno {errno.EACCES}] Permission denied: '{tmp_path / 'a.onnx'}'"


def test_a_missing_folder_is_an_error_about_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "missing" / "file")
    assert caught.value.filename == str(tmp_path / "missing" / "file")


def test_other_errors_keep_their_own_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "file"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")


def test_a_long_name_is_written(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 250))
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 250]


# Writes half of a file, says so, and waits.
HALF = """
import runpy, sys, time
from pathlib import Path
atomic_file = runpy.run_path(sys.argv[2])["atomic_file"]
with atomic_file(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""


def half_written(path: Path) -> subprocess.Popen[str]:
    """A process that has written half of the file's successor."""
    process = subprocess.Popen(
        [sys.executable, "-c", HALF, str(path), files.__file__], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def test_what_killed_processes_leave_is_removed_and_what_others_write_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    (other := tmp_path / ".file.draft-of-mine").mkdir()
    live, killed = half_written(path), half_written(path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(list(tmp_path.iterdir())) == 4
        remove_abandoned(path)
        assert path.read_text() == "old"
        (draft,) = (folder / "file" for folder in tmp_path.iterdir() if folder not in (path, other))
        assert draft.read_text() == "half"
    finally:
        live.kill()
        live.wait()
    remove_abandoned(tmp_path / "other")
    assert draft.exists()
    remove_abandoned(path)
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_what_another_machine_leaves_is_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    monkeypatch.setattr(files.platform, "node", lambda: "another")
    process = half_written(path)
    process.kill()
    process.wait()
    (folder,) = tmp_path.iterdir()
    remove_abandoned(path)
    assert folder.exists()
    for each in (*folder.iterdir(), folder):
        os.utime(each, (0, 0))
    remove_abandoned(path)
    assert not folder.exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell the names of open files")
def test_a_durable_file_is_on_the_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "file", []
    path.write_text("old")
    synchronise = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), path.read_text()))
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_file(path, durable=True) as draft:
        draft.write_text("new")
    assert seen == [(str(draft), "old"), (str(tmp_path), "new")]


def test_a_disk_that_is_full_at_last_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left on device") as caught, atomic_file(path, durable=True) as draft:
        draft.write_text("new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_while_the_file_is_written_is_an_error_about_the_path(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_file(tmp_path / "f") as draft:
            draft.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` raises it: without a name

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as raised:
        write()
    assert raised.value.filename == str(tmp_path / "f")
    assert not list(tmp_path.iterdir())
