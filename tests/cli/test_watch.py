"""`hstl-fast watch`: what it prints, saves and refuses, and how it ends; the recognition has its own tests."""

import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from hstl_fast.cli import watch as command
from hstl_fast.cli import watching
from hstl_fast.cli.watching import Lines, sentence, summary
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.live import saving, stream
from hstl_fast.recognition.live.events import Frame, Seen, Sighting, Source, Update
from hstl_fast.recognition.live.statistics import Statistics
from hstl_fast.signals import Ending
from tests.cli.helpers import run
from tests.helpers.mjpeg import mjpeg_server

BEGAN = datetime(2024, 5, 4, 12, 0, tzinfo=timezone.utc)


def sighting(frame: int, name: str | None = "Anna", ended: bool = False) -> Sighting:
    last = BEGAN + timedelta(seconds=frame / 10)
    return Sighting(3, name, 0.25, 0.125, BEGAN, last, frame, ended)


class FakeGallery:
    url = "sqlite:///people.db"

    def people(self) -> list[str]:
        return ["Anna"]

    def stored_threshold(self) -> tuple[float, None] | None:
        return 1.0, None

    def threshold(self, false_accept_rate: float) -> float:
        raise GalleryError(f"a false-accept rate of {false_accept_rate:.0%} cannot be told")


class FakeWatcher:
    """Sees somebody in every frame, names him in the third, and says that he has gone at the end."""

    given: dict[str, Any]
    each: Callable[[Frame], None] = staticmethod(lambda frame: None)

    def __init__(self, gallery: Any, **options: Any) -> None:
        type(self).given = options

    def updates(self, source: Source) -> Iterator[Update]:
        frame = None
        for frame in source:
            told = (sighting(frame.number),) if frame.number == 2 else ()
            self.each(frame)
            yield Update(frame, (Seen(3, (2, 2, 9, 20), 5, None),), told, 9.5, 0.02, source.dropped)
        if frame is not None:
            yield Update(frame, (), (sighting(frame.number, ended=True),), 9.5, 0.02, source.dropped)


@pytest.fixture(autouse=True)
def faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    @contextmanager
    def opened(url: str, settings: Any, network: Any, create: bool) -> Iterator[FakeGallery]:
        assert not create
        yield FakeGallery()

    monkeypatch.setattr(command, "opened_gallery", opened)
    monkeypatch.setattr(command, "check_network", lambda gallery, network: None)
    monkeypatch.setattr(command, "Watcher", FakeWatcher)
    monkeypatch.setattr(stream, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(stream, "FIRST_TRIES", 2)
    before = FakeWatcher.each
    yield
    FakeWatcher.each = staticmethod(before)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watch") / "door.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for value in range(10):
        writer.write(np.full((48, 64, 3), 60 + 10 * value, np.uint8))
    writer.release()
    return path


def test_prints_sightings_status_and_summary(video: Path) -> None:
    result = run("watch", video, "--show-every", 1e-9)
    first, last, frames, delay, people = result.stdout.splitlines()
    assert first.endswith("  track 3  Anna  distance 0.250, margin 0.125  2 frames")
    assert last.endswith("  track 3  Anna  distance 0.250, margin 0.125  9 frames  gone after 0.9 s")
    assert frames.startswith("10 frames in ")
    assert frames.endswith(" a second), 0 dropped, 0 reconnections")
    assert delay == "delay: 0.020 s (median), 0.020 s (95 %), 0.020 s (longest)"
    assert people == "2 sightings, 1 track with an answer: Anna 1"
    assert result.stderr.splitlines()[4] == "frame 4: 9.5 frames a second, delay 0.02 s, 0 dropped, 1 in sight"


def test_passes_its_options(video: Path) -> None:
    run("watch", video, "--threshold", 0.3, "--every", 7, "--window", 12, "--min-height", 20)
    assert FakeWatcher.given == {
        "threshold": 0.3,
        "false_accept_rate": None,
        "every": 7,
        "window": 12,
        "min_height": 20,
        "segmenter": "background",
    }


def test_without_a_threshold_it_is_said_that_strangers_get_names(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no threshold" not in run("watch", video).stderr
    monkeypatch.setattr(FakeGallery, "stored_threshold", lambda gallery: None)
    assert "no threshold: the nearest person is always named" in run("watch", video).stderr
    assert "no threshold" not in run("watch", video, "--threshold", 1).stderr


def test_a_threshold_of_nothing_is_taken_as_identify_takes_it(video: Path) -> None:
    run("watch", video, "--threshold", 0)
    assert FakeWatcher.given["threshold"] == 0


def test_json_lines_stand_alone_or_are_appended(video: Path, tmp_path: Path) -> None:
    alone = run("watch", video, "--json", "-")
    told = [json.loads(line) for line in alone.stdout.splitlines()]
    assert told == [sighting(2).as_json(), sighting(9, ended=True).as_json()]
    assert "2 sightings" in alone.stderr
    file = tmp_path / "sightings.jsonl"
    for _ in range(2):
        assert "Anna" in run("watch", video, "--json", file).stdout
    assert [json.loads(line) for line in file.read_text().splitlines()] == told + told
    refused = run("watch", video, "--json", tmp_path / "none" / "a.jsonl", exit_code=1)
    assert "none/a.jsonl: No such file or directory" in refused.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "latin-1"])
def test_json_lines_are_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written, seen = io.BytesIO(), sighting(2, "Jos\u00e9 \U00020bb7\u7530")
    output = io.TextIOWrapper(written, encoding, errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    Lines(None, True, 0).sighting(seen)
    assert json.loads(written.getvalue().decode(encoding)) == seen.as_json()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_file_of_sightings_that_cannot_be_written_is_named(video: Path) -> None:
    result = run("watch", video, "--json", "/dev/full", exit_code=1)
    assert result.stderr.splitlines()[-1] == "Error: /dev/full: No space left on device"


def test_saves_a_video_with_what_is_known(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "annotated.mp4"
    result = run("watch", video, "--save", path)
    assert f"{path}: 10 frames, 1.0 s" in result.stdout
    capture = cv2.VideoCapture(str(path))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (10, 10)
    again = run("watch", video, "--save", path, exit_code=1)
    assert "annotated.mp4: exists already" in again.stderr
    run("watch", video, "--save", path, "--overwrite")


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.gif", r"a.gif: expected the name of a video that ends in .mp4"), ("none/a.mp4", "none' does not exist")],
)
def test_places_that_cannot_be_saved_to(video: Path, tmp_path: Path, name: str, message: str) -> None:
    result = run("watch", video, "--save", tmp_path / name, exit_code=1)
    assert message in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_watching_goes_on_where_the_disk_is_full(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "LEAST_FREE", 2**80)
    result = run("watch", video, "--save", tmp_path / "a.mp4", exit_code=1)
    assert "10 frames in" in result.stdout
    assert result.stderr.count("the disk is nearly full") == 2
    assert "Error: the video is not whole" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(video: Path, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    FakeWatcher.each = staticmethod(lambda frame: signal.raise_signal(number) if frame.number == 25 else None)
    result = run("watch", video, "--loop", "--save", tmp_path / "a.mp4")
    assert "gone after 2.5 s" in result.stdout
    assert "26 frames in" in result.stdout
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 26
    assert signal.getsignal(number) is before


def test_the_second_signal_acts_as_usual() -> None:
    ended: list[int] = []
    with Ending(lambda: ended.append(1)) as ending:
        signal.raise_signal(signal.SIGINT)
        assert (ending.signal, ended) == (signal.SIGINT, [1])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ends_after_some_seconds(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Timer:
        """Goes off at once, and again when it is cancelled."""

        def __init__(self, seconds: float, call: Callable[[], None]) -> None:
            assert seconds == 60
            self.start = self.cancel = call

    monkeypatch.setattr(command.threading, "Timer", Timer)
    assert run("watch", video, "--loop", "--max-seconds", 60).stdout == ""
    closed = threading.Event()
    monkeypatch.undo()
    with command._limited(SimpleNamespace(close=closed.set), 0.01):
        assert closed.wait(20)


def test_a_stream_that_is_lost_and_found() -> None:
    with mjpeg_server() as server:
        server.leaves = 5
        FakeWatcher.each = staticmethod(lambda frame: signal.raise_signal(signal.SIGINT) if frame.number > 6 else None)
        address = server.url.replace("//", "//me:secret@")
        result = run("watch", address, "--timeout", 20)
    shown = server.url.replace("//", "//***@")
    assert f"{shown}: it has ended; trying again" in result.stderr
    assert f"{shown}: found again" in result.stderr
    assert "1 reconnection" in result.stdout
    assert "secret" not in result.output


def test_a_stream_that_never_delivers() -> None:
    with mjpeg_server() as server:
        pass
    result = run("watch", server.url, exit_code=1)
    assert "(1 of 2)" in result.stderr
    assert "got none in 2 tries" in result.stderr.splitlines()[-1]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["97"], 1, "camera 97: expected a camera at /dev/video97, got none"),
        (["rtsp://host/x", "--loop"], 1, "loop: expected a video file"),
        (["none.avi"], 1, "none.avi: expected a video file, got nothing there"),
        (["0", "--threshold", 1, "--false-accept-rate", 0.1], 2, "expected one of them, got both"),
        (["0", "--port", 80], 2, "--host, --port and --token: expected with --serve"),
        (["0", "--timeout", 0], 2, "--timeout"),
        (["0", "--every", 26], 2, "26 is not in the range 1<=x<=25"),
        (["0", "--window", 10**9], 2, "is not in the range 5<=x<=150"),
    ],
)
def test_what_is_refused(arguments: list[Any], exit_code: int, message: str) -> None:
    assert message in run("watch", *arguments, exit_code=exit_code).stderr


def test_a_rate_that_the_gallery_cannot_tell_is_refused_before_anybody_comes(video: Path) -> None:
    result = run("watch", video, "--false-accept-rate", 0.01, exit_code=1)
    assert "a false-accept rate of 1% cannot be told" in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "notes.avi").write_text("no video")
    result = run("watch", tmp_path / "notes.avi", exit_code=1)
    assert "notes.avi: expected a video that OpenCV can open" in result.stderr


def test_a_terminal_has_one_line_of_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.sys.stderr, "isatty", lambda: True, raising=False)
    lines = Lines(None, False, 1e-9)
    frame = Frame(7, 0.7, 0.0, np.zeros((4, 4, 3), np.uint8))
    lines.status(Update(frame, (), (), 25.0, 0.1, 2))
    lines.sighting(sighting(4))
    lines.say("done")
    out, err = capsys.readouterr()
    assert out == f"{sentence(sighting(4))}\n"
    assert err == "\r\x1b[Kframe 7: 25.0 frames a second, delay 0.10 s, 2 dropped, 0 in sight\r\x1b[Kdone\n"


def test_people_nobody_knows_are_nobody() -> None:
    told = Sighting(1, None, None, None, BEGAN, BEGAN, 1, False)
    assert sentence(told).endswith("  track 1  nobody  1 frame")


def test_the_figures_of_a_run() -> None:
    statistics = Statistics()
    assert (statistics.fps, statistics.delay(0.5)) == (None, None)
    image = np.zeros((4, 4, 3), np.uint8)
    for number in range(100):
        told = (sighting(number, name=f"P{number % 12}", ended=True),)
        statistics.add(Update(Frame(number, 0, 0, image), (), told, 25, number / 100, number))
    assert (statistics.frames, statistics.dropped, statistics.worst_delay) == (100, 99, 0.99)
    assert statistics.delay(0.5) == pytest.approx(0.49, abs=0.0011)
    assert statistics.delay(0.95) == pytest.approx(0.94, abs=0.0011)
    assert statistics.delay(1.0) == pytest.approx(0.99, abs=0.0011)
    assert "100 tracks with an answer: P0 9, " in summary(statistics, 1, 2)
    assert summary(statistics, 1, 2).endswith(", 2 more people")
    assert "99 dropped, 2 black or without picture, 1 reconnection\n" in summary(statistics, 1, 2)
