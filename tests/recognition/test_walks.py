"""Walks out of videos and silhouettes: their names and rates, what cannot be used, and tracks of several people."""

from pathlib import Path

import numpy as np
import pytest

from hstl_fast.recognition.records import Clip
from hstl_fast.recognition.walks import Cutting, Walk, Walks, chosen, is_video, overlapping
from hstl_fast.silhouettes.collecting import CUT
from hstl_fast.silhouettes.video.output import write_output
from hstl_fast.silhouettes.video.stages import Stages
from hstl_fast.silhouettes.video.tracks import Extraction
from tests.cli.helpers import walker
from tests.helpers.filmed import Film, film, track

Spans = list[tuple[int, int]]


@pytest.fixture
def filmed(monkeypatch: pytest.MonkeyPatch) -> Film:
    return film(monkeypatch)


def test_videos_are_told_by_name_or_content(tmp_path: Path) -> None:
    for name, content, expected in [
        ("a.mp4", b"", True),
        ("b.MOV", b"x", True),
        ("c", b"\0\0\0\x18ftypmp42", True),
        ("d.dat", b"\x1aE\xdf\xa3", True),
        ("e", b"ARROW1\0\0", False),
        ("f.npz", b"PK\3\4", False),
        ("g", b"RIFF\0\0\0\0WEBP", False),
    ]:
        (tmp_path / name).write_bytes(content)
        assert is_video(tmp_path / name) == expected, name
    assert not is_video(tmp_path)
    assert not is_video(tmp_path / "none.mp4")


def test_walks_are_named_and_have_their_rates(tmp_path: Path, filmed: Film) -> None:
    video = filmed(tmp_path / "door.mp4", (3, 40), (50, 99))
    np.savez(tmp_path / "ann.npz", silhouettes=walker(1, 33), fps=12.5)
    np.save(tmp_path / "bo.npy", walker(2, 31))
    found = Walks([tmp_path / "ann.npz", video, tmp_path / "bo.npy", video], Cutting(min_frames=31))
    read = [(w.clip.source, len(w.clip.silhouettes), w.clip.fps, w.video) for w in found]
    assert read == [
        ("door.mp4-track01", 38, 25.0, video),
        ("door.mp4-track02", 50, 25.0, video),
        ("ann", 33, 12.5, None),
        ("bo", 31, None, None),
    ]
    assert not found.failures


def test_videos_of_one_name_are_named_by_their_paths(tmp_path: Path, filmed: Film) -> None:
    videos = [filmed(tmp_path / folder / "door.mp4", (0, 40)) for folder in "ab"]
    assert [walk.clip.source for walk in Walks(videos)] == [f"{video}-track01" for video in videos]


def test_what_cannot_be_used_stops_nothing_else(tmp_path: Path, filmed: Film) -> None:
    empty, video = filmed(tmp_path / "empty.avi"), filmed(tmp_path / "door.mp4", (0, 40))
    np.save(tmp_path / "short.npy", walker(1, 12))
    (tmp_path / "broken.npy").write_bytes(b"x")
    np.save(tmp_path / "ann.npy", walker(1, 50))
    found = Walks([empty, video, *(tmp_path / f"{name}.npy" for name in ("short", "broken", "ann"))], max_frames=40)
    assert [(w.clip.source, len(w.clip.silhouettes)) for w in found] == [("door.mp4-track01", 40), ("ann", 40)]
    nobody, broken, short = found.failures
    assert nobody == f"{empty}: no track of 30 frames or more (longest 0)"
    assert "broken.npy" in broken
    assert short.startswith("short: expected a walk of at least 30 frames, got 12")
    assert [(each.where, each.detail) for each in found.left_out if each.reason == CUT] == [
        ("door.mp4-track01", "40 of 41 frames are used"),
        ("ann", "40 of 50 frames are used"),
    ]


def test_refuses_a_limit_below_the_fewest_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"max_frames must be at least min_frames, 30; got 10 \(--max-frames"):
        Walks([tmp_path], max_frames=10)
    with pytest.raises(ValueError, match="expected at least one video"):
        Walks([])


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 40), (41, 80)], []),
        ([(0, 40), (40, 80)], [1, 2]),
        ([(0, 20), (30, 90), (50, 60)], [2, 3]),
        ([(30, 90), (0, 200)], [1, 2]),
    ],
)
def test_tracks_of_one_time_overlap(spans: Spans, expected: list[int]) -> None:
    found = overlapping([track(i, *span) for i, span in enumerate(spans, 1)])
    assert [int(each.name[-2:]) for each in found] == expected


def of_video(*spans: tuple[int, int]) -> list[Walk]:
    tracks = [track(i, *span) for i, span in enumerate(spans, 1)]
    return [Walk(Clip(t.name, t.silhouettes, t.fps), Path("door.mp4"), t) for t in tracks]


def test_two_people_are_refused_unless_one_is_chosen() -> None:
    walked = of_video((0, 40), (20, 80), (90, 130))
    with pytest.raises(ValueError, match="expected one person, got 2 tracks that overlap in time") as error:
        chosen(walked, None)
    assert "track 1 in the frames 0 to 40, in frame 20 a box of 40 x 110 pixels at (320, 120)" in str(error.value)
    assert "track 2 in the frames 20 to 80" in str(error.value)
    assert "track 3" not in str(error.value)
    assert "--track NUMBER" in str(error.value)
    assert chosen(walked, [3, 1]) == [walked[0], walked[2]]
    assert chosen(walked[1:], None) == walked[1:]


def test_a_crowd_is_described_in_part() -> None:
    with pytest.raises(ValueError, match=r"got 9 tracks that overlap.*; track 6 in .*; and 3 more; say which"):
        chosen(of_video(*[(i, 60) for i in range(9)]), None)


def test_a_track_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"door.mp4: no track 4 \(--track\) among its 2: track 1 in the frames 0"):
        chosen(of_video((0, 40), (50, 90)), [1, 4])


def test_tracks_that_were_written_are_tracks(tmp_path: Path, filmed: Film) -> None:
    folder = tmp_path / "tracks"
    tracks = [track(1, 0, 40), track(2, 20, 80)]
    found = Extraction(tmp_path / "door.mp4", 25.0, 25.0, tracks, Stages(frames=81))
    write_output(folder, found)
    read = list(Walks([folder], Cutting(min_frames=20)))
    assert [(w.video, w.track.frames.tolist(), w.clip.fps) for w in read if w.track] == [
        (folder, t.frames.tolist(), 25.0) for t in tracks
    ]
    with pytest.raises(ValueError, match="tracks: expected one person, got 2 tracks that overlap"):
        chosen(read, None)
    (folder / "tracks.json").write_text("[]")
    assert [walk.track for walk in Walks([folder])] == [None, None]
