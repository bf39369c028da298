"""Annotated videos: their times, their ends, and places where they cannot be written."""

import errno
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from hstl_fast.recognition.live import saving
from hstl_fast.recognition.live.saving import Recorder

HEIGHT, WIDTH = 48, 64


def grey(value: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def read(path: Path) -> tuple[float, list[int]]:
    capture = cv2.VideoCapture(str(path))
    values = []
    while True:
        ok, image = capture.read()
        if not ok:
            return capture.get(cv2.CAP_PROP_FPS), values
        assert image.shape == (HEIGHT, WIDTH, 3)
        values.append(round(image.mean() / 10) * 10)


@pytest.mark.parametrize("suffix", saving.SUFFIXES)
def test_pictures_are_written_at_their_times(tmp_path: Path, suffix: str) -> None:
    recorder = Recorder(tmp_path / f"a{suffix}", 10)
    for value, seconds in ((50, 5.0), (100, 5.1), (100, 5.11), (150, 5.4), (200, 605.4)):
        recorder.write(grey(value), seconds)
    recorder.write(grey(60, (30, 30)))
    assert recorder.frames == 5 + 20 + 1
    recorder.close()
    fps, values = read(tmp_path / f"a{suffix}")
    assert fps == 10
    assert values == [50, 100, 100, 100, 150, *19 * [150], 200, 60]
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_an_unknown_rate_is_25(tmp_path: Path) -> None:
    assert Recorder(tmp_path / "a.mp4", None).fps == Recorder(tmp_path / "a.mp4", float("nan")).fps == 25
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.gif", ValueError, r"a\.gif: expected the name of a video that ends in \.mp4, \.mkv, \.avi"),
        ("none/a.mp4", OSError, r"none/a\.mp4: the folder .*none' does not exist"),
        ("folder.mp4", OSError, r"folder\.mp4: expected a file to write, got a folder"),
        ("old.mp4", FileExistsError, r"old\.mp4: exists already"),
    ],
)
def test_places_that_cannot_be_written(tmp_path: Path, name: str, kind: type[Exception], message: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "old.mp4").write_bytes(b"kept")
    with pytest.raises(kind, match=message):
        Recorder(tmp_path / name, 25)
    assert (tmp_path / "old.mp4").read_bytes() == b"kept"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(saving.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(OSError, match=r"a\.mp4: cannot be written: Permission denied"):
        Recorder(tmp_path / "a.mp4", 25)


def test_an_earlier_video_is_replaced_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    recorder = Recorder(tmp_path / "a.mp4", 10, overwrite=True)
    recorder.write(grey(50))
    recorder.close()
    assert read(tmp_path / "a.mp4") == (10, [50])


def test_the_video_ends_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    free = [100, 100, 10]
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda folder: usage(free.pop(0) * 2**20))
    recorder = Recorder(tmp_path / "a.mp4", 10)
    for value in range(10):
        recorder.write(grey(50 + 10 * value))
    with pytest.raises(OSError, match=r"a\.mp4: the disk is nearly full"):
        recorder.write(grey(200))
    recorder.close()
    assert len(read(tmp_path / "a.mp4")[1]) == 10


def test_a_video_that_was_not_written_is_noticed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mp4", 10)
    recorder.write(grey(50))
    release = recorder._writer.release

    class Full:
        def release(self) -> None:
            release()
            (tmp_path / "a.mp4").write_bytes(b"")

    recorder._writer = Full()
    with pytest.raises(OSError, match=r"a\.mp4: the video cannot be read back"):
        recorder.close()


KILLED = """
import os, signal, sys
import numpy as np
from hstl_fast.recognition.live.saving import Recorder
recorder = Recorder(sys.argv[1], 25)
rng = np.random.default_rng(0)
for _ in range(700):
    recorder.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_what_an_abrupt_end_leaves_can_be_played(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(read(path)[1]) > 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a name that is UTF-8"):
        Recorder(tmp_path / os.fsdecode(b"a\xff.avi"), 25.0)


def test_a_name_may_have_any_space(tmp_path: Path) -> None:
    path = tmp_path / "\u5165\u53e3\u3000\u6708\u66dc 3.00\u202fPM.avi"
    recorder = Recorder(path, 25.0)
    recorder.write(grey(50))
    recorder.close()
    assert read(path)[1] == [50]
