"""Video in, tracks out: rendered scenes always, and real footage where it is found."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")

from hstl_fast.silhouettes import (
    SilhouetteError,
    SilhouetteWarning,
    Track,
    align,
    contact_sheet,
    extract,
    find_sequences,
    read,
    video_to_silhouettes,
)
from hstl_fast.silhouettes.video.cleaning import untorn_frames
from tests.silhouettes.video.footage import Walker, write_video
from tests.silhouettes.video.scenes import Scene, walker, write

STREET = Path(
    os.environ.get("HSTL_FAST_TEST_VIDEO", Path(__file__).parents[3].parent / "shared" / "video" / "vtest.avi")
)


@pytest.fixture(scope="module")
def two_walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    walkers = [Walker(-20, 6, ground=105, height=90), Walker(500, -6, ground=230, height=100, colour=(200, 30, 30))]
    return write_video(tmp_path_factory.mktemp("video") / "two.avi", walkers, 90)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small and short video, for what does not depend on its content."""
    scene = Scene([walker(10, 110, 70, speed=3.2, identity=3)], 50, size=(120, 200))
    return write(tmp_path_factory.mktemp("video") / "walk.avi", scene)


@pytest.fixture(scope="module")
def tracks(two_walkers: Path) -> list[Track]:
    return extract(two_walkers)


def test_two_walkers_are_two_tracks(tracks: list[Track]) -> None:
    assert [t.name for t in tracks] == ["two-track01", "two-track02"]
    assert all(len(t.frames) >= 60 for t in tracks)
    for track in tracks:
        assert track.silhouettes.shape == (len(track.frames), 64, 64)
        assert track.boxes.shape == (len(track.frames), 4)
        assert (np.diff(track.frames) > 0).all()


def test_boxes_follow_the_walkers(tracks: list[Track]) -> None:
    right, left = sorted(tracks, key=lambda t: t.boxes[0, 0])
    for track, column in ((right, lambda t: -20 + 6 * t), (left, lambda t: 500 - 6 * t)):
        middle = track.boxes[:, 0] + track.boxes[:, 2] / 2
        np.testing.assert_allclose(middle, column(track.frames), atol=6)
    np.testing.assert_allclose(right.boxes[:, 3], 90, atol=6)
    np.testing.assert_allclose(left.boxes[:, 1] + left.boxes[:, 3], 230, atol=8)


def test_silhouettes_show_a_walking_figure(tracks: list[Track]) -> None:
    for track in tracks:
        bodies = track.silhouettes >= 128
        assert bodies[:, :8, 28:37].mean() > 0.5
        assert bodies[:, 20:28, 29:35].all(axis=(1, 2)).mean() > 0.95
        stride = bodies[:, -10:].any(axis=1).sum(axis=1)
        assert stride.max() > 2.5 * stride.min()
        np.testing.assert_array_equal(track.silhouettes[0], align(track.silhouettes[0]))


def test_same_video_same_tracks(two_walkers: Path, tracks: list[Track]) -> None:
    again = extract(two_walkers)
    assert [t.name for t in again] == [t.name for t in tracks]
    for a, b in zip(tracks, again, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.silhouettes, b.silhouettes)


def test_early_frames_are_as_good_as_late_ones(tmp_path: Path) -> None:
    (track,) = extract(write_video(tmp_path / "one.avi", [Walker(40, 5)], 70))
    assert track.frames[0] <= 1


def test_a_person_who_stands_still_is_not_learnt_as_background(tmp_path: Path) -> None:
    people = [Walker(60, 0, last=40), Walker(130, 5, ground=230)]
    standing = min(extract(write_video(tmp_path / "standing.avi", people, 120)), key=lambda t: t.boxes[0, 0])
    assert len(standing.frames) >= 38


@pytest.mark.slow
def test_people_who_cross_are_never_one_silhouette(tmp_path: Path) -> None:
    crossing = write_video(tmp_path / "cross.avi", [Walker(-20, 4), Walker(500, -4, colour=(210, 40, 40))], 130)
    tracks = extract(crossing)
    assert len(tracks) == 4
    for track in tracks:
        assert (track.boxes[:, 2] < 60).all()
        assert (np.abs(2 * 4 * track.frames - 520) > 25).all()


def test_torn_bodies_are_not_whole_but_striding_ones_are() -> None:
    silhouettes = np.zeros((30, 64, 64), np.uint8)
    silhouettes[:, :, 26:38] = 255
    silhouettes[::4, 40:, 26:30] = 0
    silhouettes[11, 12:30, 26:33] = 0
    assert np.flatnonzero(~untorn_frames(silhouettes)).tolist() == [11]
    assert untorn_frames(np.zeros((3, 64, 64), np.uint8)).all()


def test_writes_sequences_sheet_and_description(two_walkers: Path, tracks: list[Track], tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    out = tmp_path / "new" / "out"
    summary = video_to_silhouettes(two_walkers, out, progress=lambda *stage: stages.append(stage))
    assert sorted(p.name for p in out.iterdir()) == [
        "contact_sheet.png",
        "tracks.json",
        "two-track01.npz",
        "two-track02.npz",
    ]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]
    assert (summary.num_frames, summary.fps, summary.out_dir) == (90, 10.0, out)
    for saved, track in zip(summary.tracks, tracks, strict=True):
        np.testing.assert_array_equal(read(saved.path), track.silhouettes)
        assert (saved.num_frames, saved.first_frame) == (len(track.frames), track.frames[0])
    description = json.loads(summary.tracks_json.read_text())
    assert description["video"] == "two.avi"
    assert description["tracks"][0]["frames"] == tracks[0].frames.tolist()
    assert description["tracks"][1]["boxes_xywh"] == tracks[1].boxes.tolist()
    assert [name for name, _ in find_sequences([out])] == ["two-track01", "two-track02"]
    sheet = pytest.importorskip("PIL.Image").open(summary.contact_sheet)
    np.testing.assert_array_equal(np.asarray(sheet), contact_sheet(tracks))
    for (stage, done, total), (following, then, _) in pairwise(stages):
        assert done <= total
        assert then == done + 1 if following == stage else then == 0
    assert stages[-1][1] == stages[-1][2]


def test_contact_sheet_shows_every_track(tracks: list[Track]) -> None:
    sheet = contact_sheet(tracks)
    assert sheet.shape == (2 * 66, 150 + 16 * 66)
    assert sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet[1:65, 151:215], tracks[0].silhouettes[0])
    np.testing.assert_array_equal(sheet[67:131, -65:-1], tracks[1].silhouettes[-1])
    assert sheet[:66, :150].max() > 200
    with pytest.raises(ValueError, match="expected at least one track, got none"):
        contact_sheet([])


def test_output_folder_in_the_way(two_walkers: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="expected a folder or nothing there, got a file"):
        video_to_silhouettes(two_walkers, tmp_path / "file")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"got one with mine\.txt in it"):
            video_to_silhouettes(two_walkers, tmp_path / "taken", overwrite=overwrite)
    assert (tmp_path / "taken" / "mine.txt").read_text() == "x"


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(
    two_walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hstl_fast.silhouettes.video.extraction.Footage", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match=r"\.: expected a folder that can be replaced, got the one we are in"):
        video_to_silhouettes(two_walkers, ".")
    with pytest.raises(FileExistsError, match="got a mount point"):
        video_to_silhouettes(two_walkers, "/")


def test_overwrite_replaces_an_earlier_output_and_nothing_else(walk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    video_to_silhouettes(walk, out)
    with pytest.raises(FileExistsError, match=r"got an earlier output .*--overwrite"):
        video_to_silhouettes(walk, out)
    (out / "walk-track01.npz").write_bytes(b"old")
    video_to_silhouettes(walk, out, overwrite=True)
    assert len(read(out / "walk-track01.npz")) > 30
    (out / "embeddings.npz").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"embeddings\.npz"):
        video_to_silhouettes(walk, out, overwrite=True)
    assert (out / "embeddings.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("stage", ["learning the background", "cutting out people", "aligning silhouettes"])
def test_interruption_leaves_nothing_behind(walk: Path, tmp_path: Path, stage: str) -> None:
    def interrupt(name: str, done: int, total: int) -> None:
        if name == stage and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video_to_silhouettes(walk, tmp_path / "out", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_failure_while_writing_leaves_the_earlier_output(
    walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_to_silhouettes(walk, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("hstl_fast.silhouettes.video.output._write_png", full)
    with pytest.raises(OSError, match="no space left"):
        video_to_silhouettes(walk, tmp_path / "out", overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_video_without_people(tmp_path: Path) -> None:
    empty = write_video(tmp_path / "empty.avi", [], 20)
    with pytest.raises(SilhouetteError, match=r"empty.avi: no track of 30 frames or more \(longest 0\).* in 20 frames"):
        video_to_silhouettes(empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tracks_too_short(walk: Path) -> None:
    with pytest.raises(SilhouetteError, match=r"no track of 51 frames or more \(longest [45]\d\)"):
        extract(walk, min_frames=51)
    with pytest.raises(SilhouetteError, match="looking for people 110 pixels high or more"):
        extract(walk, min_height=110)


@pytest.mark.parametrize(("content", "message"), [(b"", "OpenCV can open"), (b"hello" * 99, "OpenCV can open")])
def test_not_a_video(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.avi").write_bytes(content)
    with pytest.raises(SilhouetteError, match=rf"bad\.avi: expected .*{message}"):
        extract(tmp_path / "bad.avi")


def test_missing_video_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SilhouetteError, match=r"none\.avi: expected a video file, got nothing there"):
        extract(tmp_path / "none.avi")
    with pytest.raises(SilhouetteError, match="expected a video file, got a folder"):
        extract(tmp_path)


def test_truncated_video_is_used_as_far_as_it_goes_and_reported(two_walkers: Path, tmp_path: Path) -> None:
    whole = two_walkers.read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.warns(SilhouetteWarning, match=r"cut\.avi: \d\d of 90 frames decode, the rest is left out"):
        tracks = extract(tmp_path / "cut.avi")
    assert 1 <= len(tracks) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"), [({"min_frames": 0}, "min_frames .* got 0"), ({"min_height": 5}, "got 5")]
)
def test_arguments_out_of_range(walk: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract(walk, **arguments)


@pytest.mark.parametrize("module", ["cv2", "edgefirst.tracker"])
def test_missing_packages_name_the_extra(walk: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'hstl_fast\[video\]'"):
        extract(walk)


@pytest.mark.slow
@pytest.mark.skipif(not STREET.is_file(), reason=f"street footage not found at {STREET} (set HSTL_FAST_TEST_VIDEO)")
def test_street_footage(tmp_path: Path) -> None:
    summary = video_to_silhouettes(STREET, tmp_path / "street")
    described = json.loads(summary.tracks_json.read_text())["tracks"]
    assert len(summary.tracks) >= 15
    assert summary.num_frames == 795
    for saved, track in zip(summary.tracks, described, strict=True):
        silhouettes, boxes = read(saved.path), np.array(track["boxes_xywh"])
        assert len(silhouettes) == len(boxes) == saved.num_frames >= 30
        bodies = silhouettes >= 128
        assert bodies[:, 20:26, 30:35].all(axis=(1, 2)).mean() > 0.9
        width = bodies.any(axis=1).sum(axis=1)
        assert np.median(width) < 32
        inside = (boxes[:, :2] > 0).all() and (boxes[:, :2] + boxes[:, 2:] < (768, 576)).all()
        assert inside
