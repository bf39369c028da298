"""Streams that stall, break off, come back or never deliver, and cameras that are not there."""

import errno
import io
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from hstl_fast.recognition.live import grabbing, newest, sources, stream
from hstl_fast.recognition.live.grabber import FRAME, HEADER, LOST, NO_PICTURE, OPEN, READY, RECORDING, Outbox
from hstl_fast.recognition.live.grabbing import GrabbingProcess, Message
from hstl_fast.recognition.live.sources import SourceError, open_source, without_password
from hstl_fast.recognition.live.stream import LiveSource
from tests.helpers.mjpeg import MjpegServer, mjpeg_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(stream, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(stream, "FIRST_TRIES", 2)
    monkeypatch.setattr(grabbing, "FAREWELL", 0.05)


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with mjpeg_server() as running:
        yield running


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def test_the_newest_frames_are_taken_and_the_others_are_counted(server: MjpegServer) -> None:
    source = open_source(server.url, timeout=20)
    assert (source.is_live, source.name) == (True, server.url)
    frames = iter(source)
    taken = [next(frames)]
    for _ in range(1000):
        server.wait_for(server.sent + 20)
        taken.append(next(frames))
        if taken[-1].number - taken[-2].number > 5:
            break
    taken.append(next(frames))
    source.close()
    assert list(frames) == []
    *_, before, after, last = taken
    assert last.image.shape == (48, 64, 3)
    assert before.number + 5 < after.number < last.number
    assert before.received < after.received < last.received
    assert last.seconds - before.seconds == pytest.approx(last.received - before.received)
    assert source.dropped >= after.number - before.number - 1


@pytest.mark.slow
def test_a_stream_that_breaks_off_is_found_again(server: MjpegServer) -> None:
    server.leaves = 10
    said: list[str] = []
    source = open_source(server.url, timeout=20, report=said.append)
    numbers, seconds = [], []
    for frame in source:
        numbers.append(frame.number)
        seconds.append(frame.seconds)
        if source.reconnections == 1:
            source.close()
    assert numbers == sorted(set(numbers))
    assert numbers[-1] >= 10
    assert (np.diff(seconds) > 0).all()
    assert said == [f"{server.url}: {what}" for what in ("it has ended; trying again", "found again")]


def waiting_for(server: MjpegServer, requests: int) -> None:
    while server.requests < requests and not server.over.wait(0.01):
        pass


def test_a_stream_that_never_delivers_is_given_up() -> None:
    port = free_port()
    said: list[str] = []
    source = open_source(f"http://me:secret@127.0.0.1:{port}/video", timeout=20, report=said.append)
    with pytest.raises(SourceError) as caught:
        list(source)
    name = f"http://***@127.0.0.1:{port}/video"
    seconds = str(caught.value).split(" over ")[1].split()[0]
    assert str(caught.value) == (
        f"{name}: expected a source that delivers frames, got none in 2 tries over {seconds} seconds (it cannot be "
        f"opened); the host refuses connections at port {port}"
    )
    assert said == [f"{name}: it cannot be opened; trying again (1 of 2)"]


@pytest.mark.parametrize("silent", ["answering", "sending"])
@pytest.mark.slow
def test_a_stream_is_closed_while_opencv_waits(server: MjpegServer, silent: str) -> None:
    getattr(server, silent).clear()
    source = open_source(server.url, timeout=100)
    taken = threading.Thread(target=lambda: list(source), daemon=True)
    taken.start()
    waiting_for(server, 1)
    source.close()
    taken.join(20)  # far less than the 100 seconds that OpenCV would wait
    assert not taken.is_alive()


class Scripted:
    """Grabs what a script says: a grey value, or None for no picture; then a reason for the loss, or silence."""

    def __init__(self, values: list[int | None], lost: str | None = "it has ended", kind: bytes = OPEN) -> None:
        self.values, self.lost, self.kind = values, lost, kind
        self.ended = threading.Event()

    def messages(self) -> Iterator[Message]:
        for kind in (READY, self.kind):
            yield Message(kind, 0, time.monotonic(), None, "")
        for number, value in enumerate(self.values):
            image = None if value is None else np.full((4, 4, 3), value, np.uint8)
            yield Message(NO_PICTURE if value is None else FRAME, number, time.monotonic(), image, "")
        if self.lost is None:
            self.ended.wait(20)
        else:
            yield Message(LOST, 0, time.monotonic(), None, self.lost)

    def end(self) -> None:
        self.ended.set()


def scripted(*grabbers: Scripted, **options: Any) -> LiveSource:
    opened = iter(grabbers)
    return LiveSource("camera 0", lambda: next(opened), **options)


def test_frames_that_are_black_or_without_picture_are_left_out() -> None:
    grabbers = [Scripted([0, None, 90, 0]), Scripted([None, 120], lost=None)]
    source = scripted(*grabbers)
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == 2:
            source.close()
    assert [(frame.number, frame.image[0, 0, 0]) for frame in frames] == [(2, 90), (5, 120)]
    assert source.bad_frames == 4
    assert all(grabber.ended.is_set() for grabber in grabbers)


def test_a_recording_at_an_address_ends() -> None:
    source = scripted(Scripted([50, 60, 70], kind=RECORDING))
    assert [frame.image[0, 0, 0] for frame in source] == [50, 60, 70]


def test_a_source_that_falls_silent_is_opened_again() -> None:
    said: list[str] = []
    source = scripted(*(Scripted([50], lost=None) for _ in range(2)), timeout=0.05, report=said.append)
    frames = iter(source)
    next(frames)
    assert next(frames).number == 1
    source.close()
    assert said == ["camera 0: no frame for 0.05 seconds; trying again", "camera 0: found again"]


def test_silence_that_opencv_ends_is_silence() -> None:
    source = scripted(*(Scripted([], lost="it cannot be opened") for _ in range(2)), timeout=1e-9)
    with pytest.raises(SourceError, match="no frame for 1e-09 seconds"):
        list(source)


def test_frames_that_the_process_has_dropped_are_counted() -> None:
    class Skipping(Scripted):
        def messages(self) -> Iterator[Message]:
            return (message for message in super().messages() if message.number in (0, 7))

    source = scripted(Skipping(10 * [50], lost=None))
    frames = iter(source)
    assert [next(frames).number, next(frames).number] == [0, 7]
    assert source.dropped == 6
    source.close()


def test_a_process_that_dies_is_started_again() -> None:
    class Dying(Scripted):
        def messages(self) -> Iterator[Message]:
            return (message for message in super().messages() if message.kind == FRAME)

    said: list[str] = []
    source = scripted(Dying([50]), Scripted([60], lost=None), report=said.append)
    frames = iter(source)
    assert [next(frames).image[0, 0, 0], next(frames).image[0, 0, 0]] == [50, 60]
    source.close()
    assert said[0] == "camera 0: the process that grabs its frames has ended; trying again"


def test_a_process_that_cannot_be_started_is_tried_again() -> None:
    grabbers: list[Scripted | None] = [Scripted([50]), None, Scripted([60], lost=None)]

    def connect() -> Scripted:
        grabber = grabbers.pop(0)
        if grabber is None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return grabber

    said: list[str] = []
    frames = iter(source := LiveSource("camera 0", connect, report=said.append))
    assert [next(frames).image[0, 0, 0], next(frames).image[0, 0, 0]] == [50, 60]
    source.close()
    assert "camera 0: the process that grabs its frames cannot be started: Cannot allocate memory" in said[1]


def test_the_rate_is_that_of_the_last_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timed(Scripted):
        def messages(self) -> Iterator[Message]:
            began = time.monotonic()
            return (message._replace(received=began + message.number / 8) for message in super().messages())

    source = scripted(Timed(30 * [50], lost=None))
    monkeypatch.setattr(newest, "CAPACITY", 100)
    frames = iter(source)
    seen = [next(frames).number]
    while seen[-1] < 29:
        seen.append(next(frames).number)
    assert source.fps == pytest.approx(8)
    source.close()


@pytest.mark.slow
def test_the_process_takes_leave(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grabbing, "FAREWELL", 60)
    grabber = GrabbingProcess(server.url, 100.0)
    messages = grabber.messages()
    kinds = [next(messages).kind for _ in range(3)]
    assert kinds == [READY, OPEN, FRAME]
    grabber.end()
    assert grabber._process.returncode == 0
    assert LOST not in [message.kind for message in messages]


def test_a_recording_is_played_at_its_own_rate(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 50, (32, 24))
    for value in range(5):
        writer.write(np.full((24, 32, 3), 60 + 30 * value, np.uint8))
    writer.release()
    grabber = GrabbingProcess(str(path), 100.0)
    messages = list(grabber.messages())
    grabber.end()
    assert [message.kind for message in messages] == [READY, RECORDING, *5 * [FRAME], LOST]
    assert messages[-1].text == "it has ended"
    assert all(message.received - messages[1].received >= message.number / 50 - 0.001 for message in messages[2:-1])
    assert [round(float(m.image.mean()), -1) for m in messages if m.image is not None] == [60, 90, 120, 150, 180]


def test_a_camera_that_does_not_exist() -> None:
    if not sources.sys.platform.startswith("linux"):
        pytest.skip("other systems do not list their cameras")
    with pytest.raises(SourceError, match=r"camera 97: expected a camera at /dev/video97, got none; cameras here: "):
        open_source("97")
    with pytest.raises(SourceError, match=r"camera /dev/video98: expected a camera at /dev/video98, got none"):
        open_source("/dev/video98")


@pytest.mark.slow
def test_a_camera_that_is_no_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.Path, "exists", lambda path: True)
    with pytest.raises(SourceError, match=r"camera 97: .*none in 2 tries .*another program may be using it"):
        list(open_source("97"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rstp://me:secret@host/x", r"rstp://\*\*\*@host/x: expected an address that begins with rtsp://.*mean 'rtsp'"),
        ("rtsp://me:sec/ret@host/x", r"rtsp://\*\*\*@host/x: expected an address such as .*%2F"),
        ("http:///video", r"http:///video: expected an address with a host, got none"),
    ],
)
def test_addresses_that_nothing_reads(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(text)
    assert "sec" not in str(caught.value)


def test_what_belongs_to_files_alone() -> None:
    with pytest.raises(SourceError, match=r"loop: expected a video file, which has an end, got rtsp://host/x"):
        open_source("rtsp://host/x", loop=True)
    with pytest.raises(ValueError, match="timeout: expected a positive number of seconds, got 0"):
        open_source("rtsp://host/x", timeout=0)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://host:554/stream", "rtsp://host:554/stream"),
        ("rtsp://me:secret@host/stream", "rtsp://***@host/stream"),
        ("rtsp://me:se@cr/et@host/stream", "rtsp://***@host/stream"),
        ("http://host/video.cgi?user=me&pwd=secret", "http://host/video.cgi?***"),
        ("rtsp://host/user=me&password=secret&channel=1", "rtsp://host/user=***&password=***&channel=1"),
    ],
)
def test_passwords_are_hidden(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_frames_alone_are_left_out_where_nobody_reads() -> None:
    class Slow(io.BytesIO):
        def write(self, content: Any) -> int:
            assert read.wait(20)
            return super().write(content)

    read, file = threading.Event(), Slow()
    outbox = Outbox(file)
    outbox.put(READY)
    outbox.put(OPEN)
    for number in range(10):
        outbox.put(FRAME, number, bytes([number]), (1, 1))
    outbox.put(LOST, content=b"why")
    read.set()
    outbox.end()
    file.seek(0)
    kinds, frames = [], []
    while head := file.read(HEADER.size):
        kind, number, _, _, _, size = HEADER.unpack(head)
        kinds.append(kind)
        content = file.read(size)
        if kind == FRAME:
            frames.append(number)
            assert content == bytes([number])
    assert kinds == [READY, OPEN, *len(frames) * [FRAME], LOST]
    assert frames == [7, 8, 9]


def test_a_process_that_cannot_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grabbing, "LONGEST_DEATH", 0.05)
    monkeypatch.setattr(stream, "LONGEST_END", 0.05)
    grabber, waited = GrabbingProcess(0, None), []
    process, wait = grabber._process, grabber._process.wait

    def never(timeout: float | None = None) -> int:
        waited.append(timeout)
        if timeout is None:
            pytest.fail("waits without end")
        raise subprocess.TimeoutExpired("grabber", timeout)

    monkeypatch.setattr(process, "wait", never)
    monkeypatch.setattr(process, "kill", lambda: None)
    grabber.end()
    assert waited == [grabbing.FAREWELL, 0.05]
    monkeypatch.undo()
    process.kill()
    wait()


def test_a_thread_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST_END", 0.05)
    released = threading.Event()

    class Stuck:
        def messages(self) -> Iterator[Message]:
            assert released.wait(60)
            yield from ()

        def end(self) -> None:
            pass

    connection = stream._Connection(Stuck, 1.0, 0, None)
    connection.end()
    assert connection._thread.is_alive()
    released.set()
    connection._thread.join(60)
    assert not connection._thread.is_alive()
