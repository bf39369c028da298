"""Empty answers say which stage lost what and what to try; outputs hold counts, rates and warnings."""

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")

import cv2

from hstl_fast.silhouettes import SilhouetteError, SilhouetteWarning, extract, read, video_to_silhouettes
from hstl_fast.silhouettes.video import extraction, footage
from hstl_fast.silhouettes.video.blobs import find_blobs
from hstl_fast.silhouettes.video.registration import Motion
from hstl_fast.silhouettes.video.rejections import AT_THE_BORDER, TOO_SHORT, TOO_SMALL
from hstl_fast.silhouettes.video.stages import Stages
from tests.silhouettes.video.footage import Walker, write_video
from tests.silhouettes.video.scenes import Scene, walker, write


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = Scene([walker(10, 110, 70, speed=3.2, identity=3)], 50, size=(120, 200))
    return write(tmp_path_factory.mktemp("stages") / "walk.avi", scene)


def test_people_who_are_too_low_are_counted_and_the_option_named(tmp_path: Path) -> None:
    low = write(tmp_path / "low.avi", Scene([walker(10, 70, 38, speed=2, identity=3)], 50, size=(80, 140)))
    with pytest.raises(SilhouetteError, match=r"looking for people 48 pixels high or more in 50 frames") as raised:
        extract(low)
    assert TOO_SMALL in str(raised.value)
    (lower,) = {int(word) for word in str(raised.value).replace(" (", "=").split("=") if word.isdigit()} - {48}
    assert 16 <= lower < 38
    assert f"try min_height={lower} (--min-height {lower} on the command line; 48 was used)" in str(raised.value)
    assert len(extract(low, min_height=lower)[0].frames) > 30


def test_tracks_that_are_too_short_name_the_option(walk: Path) -> None:
    with pytest.raises(SilhouetteError, match=r"\d\d in tracks shorter than min_frames.*try a smaller min_frames"):
        extract(walk, min_frames=51)


def test_advice_follows_the_largest_loss() -> None:
    stages = Stages(frames=100, moving=80, shapes=70)
    assert "does he walk" in stages.advice(0.0, 30, 48)
    stages.rejections.update({TOO_SHORT: 5, AT_THE_BORDER: 60})
    assert "head to foot" in stages.advice(0.0, 30, 48)
    assert stages.counted() == (
        "80 of them show something that moves; of 70 moving shapes in them "
        "60 cut off by the border of the picture, 5 in tracks shorter than min_frames"
    )
    stages.flooded = 40
    assert "in 40 frames more than half of the picture differs" in stages.advice(0.0, 30, 48)
    assert "the camera moves: about 2.5 pixels" in stages.advice(2.5, 30, 48)


def test_output_holds_rates_and_counts(walk: Path, tmp_path: Path) -> None:
    summary = video_to_silhouettes(walk, tmp_path / "out", min_frames=10, fps=12.5)
    description = json.loads(summary.tracks_json.read_text())
    assert (summary.fps, summary.bad_frames, summary.num_frames) == (25.0, 0, 50)
    assert (description["fps"], description["track_fps"], description["bad_frames"]) == (25.0, 12.5, 0)
    assert description["stages"] == summary.stages
    assert summary.stages["kept"] == sum(t.num_frames for t in summary.tracks)
    (track,) = description["tracks"]
    assert not (np.diff(track["frames"]) % 2).any()
    assert 15 <= len(track["frames"]) <= 25
    with np.load(tmp_path / "out" / track["file"]) as saved:
        assert float(saved["fps"]) == 12.5
        np.testing.assert_array_equal(read(tmp_path / "out" / track["file"]), saved["silhouettes"])


def test_tracks_at_a_lower_rate_are_those_of_all_frames(walk: Path) -> None:
    (every,), (half,) = extract(walk, min_frames=10), extract(walk, min_frames=10, fps=12.5)
    even = every.frames % 2 == 0
    np.testing.assert_array_equal(half.frames, every.frames[even])
    np.testing.assert_array_equal(half.silhouettes, every.silhouettes[even])


def test_an_unknown_rate_is_null(walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(extraction.Footage):
        fps = property(lambda self: None, lambda self, value: None)

    monkeypatch.setattr(extraction, "Footage", Unknown)
    summary = video_to_silhouettes(walk, tmp_path / "out")
    assert summary.fps is None
    assert '"fps": null' in summary.tracks_json.read_text()
    with np.load(summary.tracks[0].path) as saved:
        assert np.isnan(saved["fps"])


def test_a_header_that_promises_one_frame_is_warned_about(walk: Path, tmp_path: Path) -> None:
    data = bytearray(walk.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, 1)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 1)
    (tmp_path / "lying.avi").write_bytes(data)
    with pytest.warns(SilhouetteWarning, match="50 frames decode where the header promises 1; all are used"):
        lying = extract(tmp_path / "lying.avi")
    np.testing.assert_array_equal(lying[0].silhouettes, extract(walk)[0].silhouettes)


def test_black_frames_are_warned_about_and_in_no_track(walk: Path, tmp_path: Path) -> None:
    source, writer = cv2.VideoCapture(str(walk)), None
    for t in range(50):
        _, frame = source.read()
        writer = writer or cv2.VideoWriter(str(tmp_path / "gaps.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 25, (200, 120))
        writer.write(np.zeros_like(frame) if t in (20, 31) else frame)
    writer.release()
    with pytest.warns(SilhouetteWarning, match="2 of 50 frames are black or have no picture, and are left out"):
        (track,) = extract(tmp_path / "gaps.avi")
    assert not {20, 31} & set(track.frames.tolist())
    assert len(track.frames) >= 30


def test_boxes_lie_where_the_camera_saw_the_body() -> None:
    mask = np.zeros((90, 90), bool)
    mask[10:70, 20:40] = True
    (blob,) = find_blobs(mask, 0, 48)
    motion = Motion(np.array([[1.0, 0.0, 2.4], [0.0, 1.0, -1.6]]), 3.0)
    assert extraction.box_in_frame(blob.box, None) == (20, 10, 20, 60)
    assert extraction.box_in_frame(blob.box, motion) == (22, 8, 20, 60)


def test_people_who_may_lie_on_their_side_are_warned_about(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage, "_unapplied_rotation", lambda capture: 90)
    with pytest.warns(SilhouetteWarning, match="asks to turn the pictures by 90 degrees, which this OpenCV does not"):
        extract(walk)


@pytest.mark.slow
def test_nobody_for_most_of_the_video(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.avi", [Walker(-20 - 5 * 240, 5)], 330)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (track,) = extract(late)
    assert track.frames[0] > 240
    assert len(track.frames) > 70
