"""`hstl-fast enroll`: what is enrolled out of videos and silhouettes, and what is refused with nothing changed."""

import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from hstl_fast import checkpoints
from hstl_fast.recognition import clock
from tests.cli.helpers import run, walker
from tests.helpers.datasets import write_data_set
from tests.helpers.filmed import Film, film
from tests.helpers.tiny import tiny_model

pytest.importorskip("sqlalchemy")


@pytest.fixture
def filmed(monkeypatch: pytest.MonkeyPatch) -> Film:
    return film(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    checkpoints.save_checkpoint(path, tiny_model())
    return path


@pytest.fixture
def people(tmp_path: Path, weights: Path) -> Path:
    """The path of a gallery, with the weights of a small network beside it."""
    shutil.copy(weights, tmp_path)
    return tmp_path / "people.db"


def into(people: Path) -> list[object]:
    return ["--gallery", people, "--checkpoint", people.with_name("weights.pt")]


def walk(path: Path, person: int = 1, frames: int = 30) -> Path:
    np.savez(path, silhouettes=walker(person, frames), fps=12.5)
    return path


def recordings(people: Path, name: str) -> list[dict[str, Any]]:
    return json.loads(run("gallery", "list", name, "--gallery", people, "--json").stdout)["recordings"]


def test_enrols_silhouettes_and_adds_more(tmp_path: Path, people: Path) -> None:
    result = run("enroll", "ann", walk(tmp_path / "a.npz"), "--gallery", people)
    assert "ann has 1 recording\n" in result.stdout
    assert "trained on rendered walkers alone" in result.stderr
    before = people.read_bytes()
    again = run("enroll", "ann", walk(tmp_path / "b.npz", 2), "--gallery", people, exit_code=1)
    assert "the name 'ann' is taken already: add recordings to the person (--add)" in again.stderr
    assert people.read_bytes() == before
    run("enroll", "ann", tmp_path / "b.npz", "--gallery", people, "--add", "--no-keep-silhouettes", "--keep-days", 3)
    first, second = recordings(people, "ann")
    assert (first["source"], first["frames"], first["fps"], first["has_silhouettes"]) == ("a", 30, 12.5, True)
    assert (second["source"], second["has_silhouettes"]) == ("b", False)
    assert first["keep_until"] is None
    assert second["keep_until"] > second["created"]


def test_enrols_the_tracks_of_one_person(people: Path, tmp_path: Path, filmed: Film) -> None:
    video = filmed(tmp_path / "door.mp4", (0, 40, 1), (60, 99, 1))
    result = run("enroll", "ann", video, *into(people))
    assert "door.mp4: 2 tracks are taken as one person: 1, 2" in result.stdout
    assert [r["source"] for r in recordings(people, "ann")] == ["door.mp4-track01", "door.mp4-track02"]


def test_two_people_in_a_video_are_refused_until_one_is_chosen(people: Path, tmp_path: Path, filmed: Film) -> None:
    pytest.importorskip("cv2")
    video, sheet = filmed(tmp_path / "door.mp4", (0, 40), (20, 70), (80, 120)), tmp_path / "sheet.png"
    result = run("enroll", "ann", video, *into(people), "--contact-sheet", sheet, exit_code=1)
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert "door.mp4: expected one person, got 2 tracks that overlap in time" in sentence
    assert "track 1 in the frames 0 to 40, in frame 20 a box of 40 x 110 pixels at (320, 120); track 2 in" in sentence
    assert "--track NUMBER" in sentence
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    assert not people.exists()
    result = run("enroll", "ann", video, *into(people), "--track", 4, exit_code=1)
    assert "no track 4 (--track) among its 3" in result.stderr
    assert not people.exists()
    run("enroll", "ann", video, *into(people), "--track", 1, "--track", 3)
    assert [r["source"] for r in recordings(people, "ann")] == ["door.mp4-track01", "door.mp4-track03"]
    run("enroll", "bo", video, *into(people), "--track", 2)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["0"], "expected the number of a track, from 1, or all alone; got 0"),
        (["one"], "expected the number of a track, from 1, or all alone; got one"),
        (["1", "all"], "expected the number of a track, from 1, or all alone; got 1, all"),
    ],
)
def test_wrong_tracks_are_refused(people: Path, tmp_path: Path, given: list[str], sentence: str) -> None:
    options = [argument for number in given for argument in ("--track", number)]
    result = run("enroll", "ann", walk(tmp_path / "a.npz"), *into(people), *options, exit_code=2)
    assert sentence in result.stderr


def test_a_track_needs_one_video(people: Path, tmp_path: Path, filmed: Film) -> None:
    videos = [filmed(tmp_path / f"{name}.mp4", (0, 40)) for name in "ab"]
    for inputs, count in ((videos, 2), ([walk(tmp_path / "a.npz")], 0)):
        result = run("enroll", "ann", *inputs, *into(people), "--track", 1, exit_code=2)
        assert f"--track: expected one video beside the number of a track, got {count}" in result.stderr


def test_a_video_with_nobody_is_refused_with_everything_else(people: Path, tmp_path: Path, filmed: Film) -> None:
    empty = filmed(tmp_path / "empty.mp4")
    result = run("enroll", "ann", walk(tmp_path / "a.npz"), empty, *into(people), exit_code=1)
    assert f"{empty}: no track of 30 frames or more (longest 0)" in result.stderr
    assert not people.exists()


def test_too_few_frames_are_refused(people: Path, tmp_path: Path) -> None:
    short = walk(tmp_path / "short.npz", frames=20)
    result = run("enroll", "ann", short, *into(people), exit_code=1)
    assert "short: expected a walk of at least 30 frames, got 20" in result.stderr
    assert not people.exists()
    run("enroll", "ann", short, *into(people), "--min-frames", 20)
    result = run("enroll", "bo", short, *into(people), "--max-frames", 20, exit_code=1)
    assert "max_frames must be at least min_frames, 30; got 20" in result.stderr


def test_a_data_set_of_several_people_is_refused(people: Path, tmp_path: Path) -> None:
    write_data_set("opengait", tmp_path / "set")
    result = run("enroll", "ann", tmp_path / "set", *into(people), exit_code=1)
    assert (
        "expected walks of one person, got 3 people (layout opengait): 001, 002, 075; give the folder" in result.stderr
    )
    assert not people.exists()


def test_a_folder_that_may_hold_several_people_is_refused(people: Path, tmp_path: Path) -> None:
    (tmp_path / "street").mkdir()
    walks = [walk(tmp_path / "street" / f"walker{i}.npz", i) for i in (1, 2)]
    result = run("enroll", "ann", tmp_path / "street", *into(people), exit_code=1)
    assert "got 2 walks that may be of several people: walker1, walker2; give those of one person" in result.stderr
    assert not people.exists()
    assert "ann has 2 recordings\n" in run("enroll", "ann", *walks, *into(people)).stdout


def test_a_file_in_place_of_the_name_is_refused(people: Path, tmp_path: Path) -> None:
    first, second = walk(tmp_path / "a.npz"), walk(tmp_path / "b.npz")
    result = run("enroll", first, second, *into(people), exit_code=2)
    assert f"expected a person before the files, got a file: {first}" in result.stderr


def test_a_file_of_another_kind_is_no_gallery(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("nothing")
    result = run("enroll", "ann", walk(tmp_path / "a.npz"), "--gallery", other, exit_code=1)
    assert "expected a gallery" in result.stderr
    assert other.read_text() == "nothing"


@pytest.mark.parametrize("command", [("enroll", "ann"), ("watch",)])
def test_without_the_extras_the_one_that_suffices_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    video = tmp_path / "door.avi"
    video.write_bytes(b"RIFF")
    for name in ("cv2", "sqlalchemy"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run(*command, video, "--gallery", tmp_path / "people.db", exit_code=1)
    assert "pip install 'hstl_fast[recognition]'" in result.stderr


def test_a_name_that_is_none_is_refused_before_videos_are_read(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["hstl_fast.cli.enroll"], "Walks", Mock(side_effect=AssertionError("a video was read"))
    )
    result = run("enroll", "a/b", walk(tmp_path / "a.npz"), *into(people), exit_code=1)
    assert "name must have no slash" in result.stderr


def test_people_whose_time_is_over_can_be_enrolled(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("enroll", "ann", walk(tmp_path / "a.npz"), *into(people), "--keep-days", 1)
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days=2))
    assert "ann has 1 recording\n" in run("enroll", "ann", tmp_path / "a.npz", *into(people)).stdout


def test_an_empty_file_is_an_empty_gallery(tmp_path: Path, people: Path) -> None:
    people.touch()
    result = run("identify", "--gallery", people, "--probe", walk(tmp_path / "a.npz"), exit_code=1)
    assert "there is no gallery in this database; `hstl-fast enroll` makes one" in result.stderr
