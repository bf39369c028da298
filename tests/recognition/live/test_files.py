"""Video files as sources: in order, at their own rate, again and again, and files that are none."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from hstl_fast.recognition.live import files
from hstl_fast.recognition.live.files import FileSource
from hstl_fast.recognition.live.newest import CAPACITY
from hstl_fast.recognition.live.sources import open_source
from hstl_fast.silhouettes import SilhouetteError


def write(path: Path, values: list[int], fps: float = 10.0) -> Path:
    """A video of flat grey frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), fps, (32, 24))
    assert writer.isOpened()
    for value in values:
        writer.write(np.full((24, 32, 3), value, np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("files") / "ramp.avi", [40, 50, 60, 70, 80])


def test_every_frame_in_order(ramp: Path) -> None:
    source = open_source(str(ramp))
    frames = list(source)
    assert (source.name, source.is_live, source.fps, source.dropped) == ("ramp.avi", False, 10.0, 0)
    assert [frame.number for frame in frames] == list(range(5))
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert [frame.image[0, 0, 0] for frame in frames] == [40, 50, 60, 70, 80]


def test_a_file_by_its_address(ramp: Path) -> None:
    assert len(list(open_source(ramp.as_uri()))) == 5


def test_numbers_and_times_go_on_in_a_loop(ramp: Path) -> None:
    source = open_source(str(ramp), loop=True)
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == 13:
            source.close()
    assert [frame.number for frame in frames] == list(range(13))
    assert [frame.seconds for frame in frames] == pytest.approx(np.arange(13) / 10)
    assert [frame.image[0, 0, 0] for frame in frames[8:]] == [70, 80, 40, 50, 60]


def test_black_frames_are_left_out(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path / "gaps.avi", [50, 0, 60, 0]))
    assert [(frame.number, frame.image[0, 0, 0]) for frame in source] == [(0, 50), (2, 60)]
    assert source.bad_frames == 2


def test_frames_come_at_the_rate_of_the_file(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path / "fast.avi", list(range(40, 60)), fps=100), pace=True)
    began = time.monotonic()
    frames = list(source)
    assert source.is_live
    assert frames[-1].number == 19
    assert all(frame.received - began >= frame.seconds for frame in frames)
    assert len(frames) + source.dropped == 20


def test_frames_that_nobody_takes_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = threading.Event()
    real = files.wait_until

    def counted(moment: float, stopped: object) -> None:
        real(moment, stopped)
        seen.append(moment)
        if len(seen) == 30:
            passed.set()

    seen: list[float] = []
    monkeypatch.setattr(files, "wait_until", counted)
    source = FileSource(write(tmp_path / "fast.avi", list(range(40, 60)), fps=100), loop=True, pace=True)
    frames = iter(source)
    next(frames)
    assert passed.wait(20)
    second = next(frames)
    assert second.number >= 28 - CAPACITY
    assert source.dropped >= second.number - 1
    source.close()
    assert list(frames) == []


def test_a_paced_file_is_closed_while_it_waits(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path / "slow.avi", [40, 50], fps=1), pace=True)
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []


@pytest.mark.parametrize("pace", [False, True])
def test_frames_that_were_never_converted(tmp_path: Path, pace: bool) -> None:
    path = write(tmp_path / "recorder.avi", [0, 0, 0, 0], fps=100)
    with pytest.raises(SilhouetteError, match="all 4 frames looked at are black"):
        list(open_source(str(path), pace=pace))


@pytest.mark.parametrize("content", [b"", b"not a video" * 100])
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    with pytest.raises(SilhouetteError, match=r"notes\.mp4: expected a video that OpenCV can open, got a file it cann"):
        open_source(str(path))


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SilhouetteError, match=r"none\.avi: expected a video file, got nothing there"):
        open_source(str(tmp_path / "none.avi"))
