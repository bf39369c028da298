"""From rendered scenes with known silhouettes to tracks: through perfect masks, and some through whole videos."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
from hstl_fast.silhouettes import SilhouetteError, extract
from hstl_fast.silhouettes.video.blobs import Blob, find_blobs
from hstl_fast.silhouettes.video.extraction import _walks
from hstl_fast.silhouettes.video.rejections import MOTIONLESS, PAIR, RIGID, TOO_SMALL
from hstl_fast.silhouettes.video.stages import Stages
from hstl_fast.silhouettes.video.tracking import track_people
from tests.silhouettes.video.scenes import Figure, Scene, approaching, box, drifting, switched, walker, write
from tests.silhouettes.video.scoring import Score, score

MIN_FRAMES = 30
# Perfect masks lose at most so many frames at the border of the picture.
MARGIN = 6


def follow(scene: Scene, min_height: int = 48) -> tuple[list[list[Blob]], Counter[str]]:
    """Runs that are long enough, from perfect masks, and what was left out."""
    stages, blobs = Stages(), []
    for t, mask in enumerate(scene.masks()):
        blobs.append(find_blobs(mask, t, min_height))
        stages.see(mask, blobs[-1], min_height)
    return [run for run in track_people(blobs, stages.rejections) if len(run) >= MIN_FRAMES], stages.rejections


def tracked(scene: Scene, min_height: int = 48) -> tuple[Score, Counter[str]]:
    """The score of the tracks that perfect masks give, and what was left out."""
    runs, rejections = follow(scene, min_height)
    walks = [walk for run in runs for walk in _walks(run, MIN_FRAMES, rejections) if len(walk[0]) >= MIN_FRAMES]
    tracks = [(np.array([b.frame for b in w]), np.array([b.box for b in w]), shapes) for w, shapes in walks]
    return score(scene, tracks), rejections


def assert_found(scene: Scene, got: Score, figure: int = 0) -> None:
    found = got.figures[figure]
    assert found.whole >= MIN_FRAMES
    assert (found.tracks, got.strangers) == (1, 0)
    assert found.frames >= found.whole - MARGIN
    assert found.iou > 0.85


def crossing(identity: int, height: float, width: int = 320) -> Scene:
    """A whole walk through the picture, from outside to outside."""
    direction = 1 if identity % 2 else -1
    start = -0.45 * height if direction > 0 else width + 0.45 * height
    frames = int((width + 0.9 * height) / (0.027 * height))
    return Scene([walker(start, 235, height, identity=identity, direction=direction)], frames, (240, width))


def assert_whole_walk(scene: Scene) -> None:
    runs, _ = follow(scene)
    whole = [body.frame for bodies in scene.bodies for body in bodies if body.whole]
    assert len(runs) == 1
    assert len(runs[0]) >= len(whole) - MARGIN


@pytest.mark.parametrize(("identity", "height"), [(12, 150), (13, 200)])
def test_large_people_are_followed_from_border_to_border(identity: int, height: int) -> None:
    """A hand or a foot is in the picture before the trunk, and is as high as a small person."""
    assert_whole_walk(crossing(identity, height))


@pytest.mark.slow
@pytest.mark.parametrize("height", [150, 200])
@pytest.mark.parametrize("identity", range(18))
def test_every_large_person_is_followed_from_border_to_border(identity: int, height: int) -> None:
    assert_whole_walk(crossing(identity, height))


@pytest.mark.parametrize("doubling", [60, -60])
def test_people_who_come_nearer_or_go_away_are_found(doubling: int) -> None:
    start = 60 if doubling > 0 else 120
    scene = Scene([approaching(160, 140 if doubling > 0 else 180, start, doubling=doubling)], 45)
    got, _ = tracked(scene)
    assert_found(scene, got)


def test_a_child_and_an_adult_on_one_path_are_both_found() -> None:
    figures = [walker(30, 200, 100, identity=3, speed=4, last=60), walker(40, 200, 140, identity=4, first=70, speed=4)]
    scene = Scene(figures, 130)
    runs, _ = follow(scene)
    assert [round(float(np.median([b.height for b in run])), -1) for run in runs] == [100, 140]
    for number, run in enumerate(runs):
        whole = [b for bodies in scene.bodies for b in bodies if b.figure == number and b.whole]
        assert len(run) >= len(whole) - MARGIN


def test_people_of_forty_pixels_are_found_when_they_are_looked_for() -> None:
    scene = Scene([walker(20, 100, 40, identity=5)], 60, (120, 160))
    got, rejections = tracked(scene, min_height=32)
    assert_found(scene, got)
    assert not rejections[TOO_SMALL]
    got, rejections = tracked(scene)
    assert got.figures[0].frames == 0
    assert rejections[TOO_SMALL] >= 55


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (box(20, 200, 100, 40, speed=3), RIGID),
        (box(40, 200, 70, 55, speed=3), RIGID),
        (box(160, 200, 100, 40, first=10, last=50), MOTIONLESS),
        (walker(160, 200, speed=0, pauses=((0, 100),)), MOTIONLESS),
        (walker(160, 200, speed=0), MOTIONLESS),
    ],
    ids=["box", "van", "door", "still figure", "treading on the spot"],
)
def test_what_does_not_walk_is_no_walker(figure: Figure, reason: str) -> None:
    got, rejections = tracked(Scene([figure], 60))
    assert (got.figures[0].frames, got.strangers) == (0, 0)
    assert rejections[reason] >= MIN_FRAMES


@pytest.mark.parametrize(("apart", "height"), [(12, 100), (25, 85)])
def test_two_people_side_by_side_are_never_one(apart: int, height: int) -> None:
    figures = [walker(60, 200, 100, identity=1, speed=2.7), walker(60 + apart, 202, height, identity=2, speed=2.7)]
    got, rejections = tracked(Scene(figures, 45))
    assert (got.figures[0].frames, got.figures[1].frames, got.strangers) == (0, 0, 0)
    assert rejections[PAIR] >= MIN_FRAMES


def test_two_people_with_some_room_between_them_are_two() -> None:
    figures = [walker(60, 200, 100, identity=1, speed=2.7), walker(135, 202, 85, identity=2, speed=2.7)]
    scene = Scene(figures, 40)
    got, _ = tracked(scene)
    for number in range(2):
        assert_found(scene, got, number)


def through_video(scene: Scene, folder: Path, min_height: int = 48) -> Score:
    path = write(folder / "scene.avi", scene)
    try:
        tracks = extract(path, min_height=min_height)
    except SilhouetteError:
        tracks = []
    return score(scene, [(t.frames, t.boxes, t.silhouettes) for t in tracks])


@pytest.mark.slow
@pytest.mark.parametrize("shadow", [0.0, 0.35])
def test_a_clean_scene_through_a_video(tmp_path: Path, shadow: float) -> None:
    scene = Scene([walker(-30, 200, identity=1, shadow=shadow)], 190, (240, 480))
    got = through_video(scene, tmp_path)
    assert got.figures[0].frames >= 0.95 * got.figures[0].whole
    assert got.figures[0].iou > 0.84


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last", "frames"), [(80, 141, 240), (100, 199, 200)])
def test_somebody_who_comes_nearer_through_a_video(tmp_path: Path, first: int, last: int, frames: int) -> None:
    """The middle of the body stays at its place, in the second case for half of the footage."""
    scene = Scene([approaching(160, 110, 60, first=first, last=last)], frames)
    got = through_video(scene, tmp_path)
    assert got.figures[0].frames >= 0.9 * got.figures[0].whole
    assert got.figures[0].iou > 0.84


@pytest.mark.slow
@pytest.mark.parametrize("apart", [15, 30])
def test_two_people_side_by_side_through_a_video(tmp_path: Path, apart: int) -> None:
    figures = [walker(-60, 200, identity=1), walker(-60 + apart, 202, identity=2, speed=2.7)]
    got = through_video(Scene(figures, 190, (240, 480)), tmp_path)
    assert (got.figures[0].frames, got.figures[1].frames, got.strangers) == (0, 0, 0)


@pytest.mark.slow
def test_small_people_and_small_things_through_a_video(tmp_path: Path) -> None:
    figures = [walker(-20, 100, 40, identity=3), box(-20, 200, 36, 15, speed=1.5)]
    got = through_video(Scene(figures, 300, (240, 320)), tmp_path, min_height=32)
    assert got.figures[0].frames >= 0.9 * got.figures[0].whole
    assert got.figures[0].iou > 0.75
    assert (got.figures[1].frames, got.strangers) == (0, 0)


def test_the_same_scene_gives_the_same_pixels() -> None:
    scene = Scene([walker(60, 100, 80)], 3, (120, 160), tremble=2.0, light=switched(1))
    again = Scene([walker(60, 100, 80)], 3, (120, 160), tremble=2.0, light=switched(1))
    for one, other in zip(scene.frames(), again.frames(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_faults_of_the_camera_are_seen_in_the_frames() -> None:
    plain = list(Scene([], 3, (60, 80), noise=0.0).frames())
    np.testing.assert_array_equal(plain[0], plain[2])
    brighter = list(Scene([], 3, (60, 80), noise=0.0, light=drifting(0, 2)).frames())
    assert abs(float(brighter[2].mean()) - float(plain[2].mean()) - 30) < 1.5
    moved = list(Scene([], 3, (60, 80), noise=0.0, pan=4.0).frames())
    np.testing.assert_array_equal(moved[1][:, :-4], moved[0][:, 4:])
    grey = next(Scene([], 1, (60, 80), grey=True).frames())
    np.testing.assert_array_equal(grey[:, :, 0], grey[:, :, 2])


def test_true_bodies_are_where_the_colours_change() -> None:
    scene = Scene([walker(80, 110, 90, identity=4)], 1, (120, 160), noise=0.0)
    wall = next(Scene([], 1, (120, 160), noise=0.0).frames())
    changed = np.abs(next(scene.frames()).astype(int) - wall).max(axis=2) > 12
    mask = next(scene.masks())
    assert (changed & mask).sum() > 0.97 * mask.sum()
    near = np.pad(mask, 1)
    near = near[:-2] | near[1:-1] | near[2:]
    near = near[:, :-2] | near[:, 1:-1] | near[:, 2:]
    assert not (changed & ~near).any()
    (body,) = scene.bodies[0]
    assert body.whole
    assert abs(body.box[3] - 90) <= 1
