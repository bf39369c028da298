"""`hstl-fast silhouettes`: what the command prints and refuses; the work itself has its own tests."""

from pathlib import Path

import numpy as np
import pytest

from hstl_fast.cli import silhouettes as command
from hstl_fast.silhouettes import SavedTrack, Summary
from tests.cli.helpers import run


def test_passes_its_options_and_prints_the_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, folder = tmp_path / "street.avi", tmp_path / "out"
    video.write_bytes(b"frames")
    seen = {}

    def fake(path: Path, out_dir: Path, **options: object) -> Summary:
        seen.update(path=path, out_dir=out_dir, **options)
        options["progress"]("cutting people out", 3, 9)
        track = SavedTrack("track-01", out_dir / "track-01.npz", 48, 10, 57)
        stages = {"left_out": {"lower than min_height": 3}}
        sheet, description = out_dir / "contact_sheet.png", out_dir / "tracks.json"
        return Summary(path, out_dir, 100, 25.0, sheet, description, [track], 0, stages)

    monkeypatch.setattr(command, "video_to_silhouettes", fake)
    given = ["--min-frames", 12, "--min-height", 20, "--fps", 12.5, "--overwrite"]
    result = run("silhouettes", video, "-o", folder, *given)
    assert (seen["path"], seen["out_dir"], seen["min_frames"], seen["overwrite"]) == (video, folder, 12, True)
    assert (seen["min_height"], seen["fps"]) == (20, 12.5)
    assert result.stdout.splitlines()[1].split() == ["track-01", "48", "10-57", "0.4-2.3"]
    assert "3 lower than min_height" in result.stdout
    assert "1 track from 100 frames" in result.stdout


def test_says_that_the_rate_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = tmp_path / "street.avi"
    video.write_bytes(b"frames")
    track = SavedTrack("track-01", tmp_path / "track-01.npz", 48, 10, 57)
    summary = Summary(video, tmp_path, 100, None, tmp_path / "sheet.png", tmp_path / "tracks.json", [track])
    monkeypatch.setattr(command, "video_to_silhouettes", lambda *args, **options: summary)
    result = run("silhouettes", video, "-o", tmp_path)
    assert result.stdout.splitlines()[1].split() == ["track-01", "48", "10-57", "unknown"]


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_unreadable_video(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("cv2")
    video = tmp_path / "broken.avi"
    video.write_bytes(content)
    result = run("silhouettes", video, "-o", tmp_path / "out", exit_code=1)
    assert "broken.avi" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.avi"]


def test_missing_video(tmp_path: Path) -> None:
    result = run("silhouettes", tmp_path / "none.avi", "-o", tmp_path / "out", exit_code=2)
    assert "does not exist" in result.stderr


def test_video_without_people(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    video = tmp_path / "empty.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 120))
    for _ in range(40):
        writer.write(np.full((120, 160, 3), 90, np.uint8))
    writer.release()
    run("silhouettes", video, "-o", tmp_path / "out", exit_code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.avi"]
