"""Video files with lying headers, frames that do not decode, impossible rates, rotations and unknown codecs."""

import math
import os
import struct
import sys
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from hstl_fast.silhouettes import SilhouetteError
from hstl_fast.silhouettes.video.containers import codec_in
from hstl_fast.silhouettes.video.footage import Footage, possible_rate

SIZE = (64, 96)


def write_numbers(path: Path, values: list[int], codec: str = "FFV1", fps: float = 10.0) -> Path:
    """A video of flat grey frames of the values given, with a bright corner at the top left."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, SIZE[::-1])
    assert writer.isOpened()
    for value in values:
        frame = np.full((*SIZE, 3), value, np.uint8)
        if value:
            frame[:16, :16] = 255
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "a.avi", [50, 60]).rename(tmp_path / os.fsdecode(b"a\xff.avi"))
    assert len([index for index, image, _ in Footage(path).frames() if image is not None]) == 2


def patched(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    data = source.read_bytes()
    assert data.count(old) >= 1
    assert len(old) == len(new)
    target.write_bytes(data.replace(old, new))
    return target


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbers(tmp_path_factory.mktemp("footage") / "ramp.avi", [40 + 3 * t for t in range(60)])


def with_frame_count(source: Path, target: Path, count: int) -> Path:
    """The same AVI with another number of frames in its main header and its stream header."""
    data = bytearray(source.read_bytes())
    main, stream = data.index(b"avih"), data.index(b"strh")
    struct.pack_into("<I", data, main + 8 + 16, count)
    struct.pack_into("<I", data, stream + 8 + 32, count)
    target.write_bytes(data)
    return target


def test_frames_come_in_order_and_only_those_asked_for(ramp: Path) -> None:
    footage = Footage(ramp)
    shots = list(footage.frames(lambda number: number % 20 == 0))
    assert [shot.number for shot in shots] == list(range(60))
    assert [int(shot.image[-1, -1, 0]) for shot in shots if shot.image is not None] == [40, 100, 160]
    assert (footage.num_frames, footage.bad_frames, footage.disagreement(), footage.fps) == (60, 0, None, 10.0)


@pytest.mark.parametrize(
    ("promised", "message"),
    [(1, "60 frames decode where the header promises 1; all are used"), (600, "60 of 600 frames decode")],
)
def test_headers_that_promise_another_number_of_frames(ramp: Path, tmp_path: Path, promised: int, message: str) -> None:
    footage = Footage(with_frame_count(ramp, tmp_path / "lying.avi", promised))
    assert footage.promised == promised
    assert sum(shot.image is not None for shot in footage.frames()) == 60
    assert message in (footage.disagreement() or "")


def test_black_frames_are_counted_and_left_out(tmp_path: Path) -> None:
    values = [0, 0, 50, 60, 0, 70, 80, 0]
    footage = Footage(write_numbers(tmp_path / "gaps.avi", values))
    assert [shot.image is None for shot in footage.frames()] == [value == 0 for value in values]
    assert (footage.num_frames, footage.bad_frames) == (8, 4)


@pytest.mark.parametrize(("value", "what"), [(0, "are black or have no picture"), (90, "are the same picture")])
def test_frames_that_were_never_converted(tmp_path: Path, value: int, what: str) -> None:
    path = write_numbers(tmp_path / "recorder.avi", [value] * 12)
    with pytest.raises(SilhouetteError, match=rf"all 12 frames looked at {what}; .*interlaced.* -vf yadif "):
        list(Footage(path).frames())


@pytest.mark.parametrize("fps", [math.nan, math.inf, 0.0, -5.0, 1000.0, 90000.0])
def test_impossible_rates_are_unknown(fps: float) -> None:
    assert possible_rate(fps) is None


def test_the_times_of_frames_give_a_rate_that_the_header_does_not(ramp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cv2.VideoCapture

    class Lying:
        def __init__(self, name: str) -> None:
            self._capture = real(name)

        def get(self, key: int) -> float:
            return math.nan if key == cv2.CAP_PROP_FPS else float(self._capture.get(key))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Lying)
    footage = Footage(ramp)
    assert footage.fps is None
    list(footage.frames())
    assert footage.fps == pytest.approx(10.0)


def test_frames_nearest_in_time(ramp: Path) -> None:
    footage = Footage(ramp)
    list(footage.frames())
    assert footage.sampled(10).tolist() == list(range(60))
    assert footage.sampled(5).tolist() == list(range(0, 60, 2))
    assert len(footage.sampled(7.5)) == 45
    footage.times = array("d", [0.0, 0.04, 0.31, 0.32, 0.6])
    assert footage.sampled(10).tolist() == [0, 1, 2, 3, 4]
    assert footage.sampled(3).tolist() == [0, 3, 4]


def test_rates_that_cannot_be_taken(ramp: Path) -> None:
    footage = Footage(ramp)
    list(footage.frames())
    with pytest.raises(SilhouetteError, match=r"expected at most the video's 10 a second, got 25"):
        footage.sampled(25)
    with pytest.raises(ValueError, match="positive number of frames a second, got nan"):
        footage.sampled(math.nan)
    footage.fps = None
    with pytest.raises(SilhouetteError, match="expected a video that says how many frames it has a second"):
        footage.sampled(5)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_turns_the_frames(tmp_path: Path, degrees: int) -> None:
    path = write_numbers(tmp_path / "phone.mp4", [60, 80, 100, 120], codec="mp4v")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16
    cosine, sine = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    one, unit = 1 << 16, 1 << 30
    struct.pack_into(">9i", data, matrix, one * cosine, one * sine, 0, -one * sine, one * cosine, 0, 0, 0, unit)
    path.write_bytes(data)
    footage = Footage(path)
    shots = [shot.image for shot in footage.frames() if shot.image is not None]
    assert footage.sideways or shots[0].shape[:2] == (SIZE if degrees == 180 else SIZE[::-1])
    if not footage.sideways:
        corners = {90: np.s_[:8, -8:], 180: np.s_[-8:, -8:], 270: np.s_[-8:, :8]}
        assert shots[0][corners[degrees]].mean() > 200


def test_a_rotation_that_is_not_applied_is_known() -> None:
    class Backend:
        def __init__(self, obeys: bool) -> None:
            self.obeys = obeys

        def get(self, key: int) -> float:
            return 90.0 if key == cv2.CAP_PROP_ORIENTATION_META else 0.0

        def set(self, key: int, value: float) -> bool:
            return self.obeys

    from hstl_fast.silhouettes.video.footage import _unapplied_rotation

    assert (_unapplied_rotation(Backend(True)), _unapplied_rotation(Backend(False))) == (0, 90)


def test_an_unknown_codec_is_named_with_the_way_out(ramp: Path, tmp_path: Path) -> None:
    odd = patched(ramp, tmp_path / "odd.avi", b"FFV1", b"zz9z")
    with pytest.raises(SilhouetteError, match=r"its codec, zz9z.*: ffmpeg -i odd\.avi -c:v libx264"):
        Footage(odd)


def test_codecs_are_named_as_people_know_them(ramp: Path, tmp_path: Path) -> None:
    entry = struct.pack(">I4sIII4s6xH", 100, b"stsd", 0, 1, 84, b"hvc1", 1)
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(12) + entry)
    (tmp_path / "b.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(40) + b"\x86\x8fV_MPEGH/ISO/HEVC\x00")
    (tmp_path / "c.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(12) + entry.replace(b"hvc1", b"mp4a"))
    (tmp_path / "d.bin").write_bytes(b"V_MPEG1 stsd strh")
    assert codec_in(tmp_path / "a.mp4") == "H.265 (hvc1)"
    assert codec_in(tmp_path / "b.mkv") == "H.265 (MPEGH/ISO/HEVC)"
    assert codec_in(tmp_path / "c.mp4") is None
    assert codec_in(tmp_path / "d.bin") is None
    assert codec_in(ramp) == "FFV1"
