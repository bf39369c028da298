"""Atomic writes: files and folders appear complete, where they were asked for, and keep links and permissions."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hstl_fast.files import atomic_file, atomic_folder


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
