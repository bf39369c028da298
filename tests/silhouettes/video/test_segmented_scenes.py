"""People found by a model in rendered scenes with known silhouettes: the camera may move, and people may stand."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
pytest.importorskip("onnxruntime")

from hstl_fast.silhouettes import SilhouetteError, extract, open_segmenter
from hstl_fast.silhouettes.video.blobs import find_blobs
from hstl_fast.silhouettes.video.camera_path import CameraPath
from hstl_fast.silhouettes.video.rejections import MOTIONLESS, PAIR, RIGID, TOO_SHORT
from hstl_fast.silhouettes.video.stages import Stages
from hstl_fast.silhouettes.video.walking import LEAST_CHANGE, change_of_legs, largest_change_of_legs, objection
from hstl_fast.silhouettes.walkers import render
from tests.cli.helpers import run
from tests.helpers.segmenter_models import FOLDER, GREEN
from tests.silhouettes.video.scenes import Figure, Scene, walker, write
from tests.silhouettes.video.scoring import Score, score

MODEL = f"onnx:{FOLDER / 'open_sizes.onnx'}"
SIZE = (112, 160)


def person(column: float, speed: float, **details: object) -> Figure:
    """Somebody of 80 pixels in green who walks at a speed in columns per frame."""
    return walker(column, 100, 80, speed=speed, colour=GREEN, **details)  # type: ignore[arg-type]


def found_in(scene: Scene, path: Path, segmenter: str = MODEL) -> Score:
    """How well the tracks of a scene show its figures; no warning is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            tracks = extract(path, segmenter=segmenter)
        except SilhouetteError:
            tracks = []
    return score(scene, [(t.frames, t.boxes, t.silhouettes) for t in tracks])


def followed(pan: float = 2.1) -> Scene:
    """A walker whom the camera keeps in its middle."""
    return Scene([person(80, 2.1, identity=3)], 40, SIZE, pan=pan)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("segmented") / "walk.avi", followed())


def assert_found(got: Score) -> None:
    found = got.figures[0]
    assert (found.tracks, got.strangers) == (1, 0)
    assert found.frames >= 0.95 * found.whole
    assert found.iou > 0.86


def test_people_whom_the_camera_follows_are_found(walk: Path) -> None:
    assert_found(found_in(followed(), walk))


@pytest.mark.slow
@pytest.mark.parametrize(("column", "speed", "pan"), [(40, 2.1, 0.0), (40, 1.0, -0.8), (60, 2.1, 3.0)])
def test_people_are_found_whether_the_camera_stands_meets_or_passes_them(
    column: float, speed: float, pan: float, tmp_path: Path
) -> None:
    scene = Scene([person(column, speed, identity=3)], 50 if pan <= 0 else 45, SIZE, pan=pan)
    assert_found(found_in(scene, write(tmp_path / "scene.avi", scene)))


@pytest.mark.slow
def test_somebody_who_stands_and_then_walks_is_found_from_the_first_frame(tmp_path: Path) -> None:
    """A learnt background takes in who stands for most of the video."""
    scene = Scene([person(40, 2.1, identity=5, pauses=((0, 50),))], 85, SIZE)
    (track,) = extract(write(tmp_path / "standing.avi", scene), segmenter=MODEL)
    assert track.frames[0] == 0
    assert len(track.frames) >= 80
    assert score(scene, [(track.frames, track.boxes, track.silhouettes)]).figures[0].iou > 0.86


@pytest.mark.slow
def test_who_stands_before_a_moving_camera_is_no_walker(tmp_path: Path) -> None:
    """His place in the picture changes, but not before the wall."""
    scene = Scene([person(120, 0.0, identity=4, pauses=((0, 100),))], 45, SIZE, pan=1.5)
    path = write(tmp_path / "still.avi", scene)
    with pytest.raises(SilhouetteError, match=f"4[0-9] {MOTIONLESS}; only people who walk are cut out"):
        extract(path, segmenter=MODEL)


@pytest.mark.slow
def test_two_people_in_one_mask_are_never_one(tmp_path: Path) -> None:
    scene = Scene([person(40, 2.1, identity=1), person(51, 2.1, identity=2)], 45, SIZE, pan=1.0)
    path = write(tmp_path / "pair.avi", scene)
    with pytest.raises(SilhouetteError, match=f"{PAIR}; try footage of people who walk apart"):
        extract(path, segmenter=MODEL)


def test_a_camera_that_moves_over_a_bare_wall_leaves_it_to_the_legs() -> None:
    path, people = CameraPath(), np.zeros((60, 80), bool)
    people[5:55, 20:40] = True
    bodies = []
    for t in range(4):
        path.add(t, np.full((60, 80, 3), 120, np.uint8), people)
        bodies += find_blobs(people, t, 40)
    assert path.places(bodies) is None
    assert path.places(bodies[2:3]) is not None
    path.forget(before=2)
    assert list(path._frames) == [2, 3]
    walk, still = render(0, view=90, frames=60), np.repeat(render(0, view=90, frames=1), 60, axis=0)
    assert objection(None, walk, may_stand=True) == ""
    assert objection(None, still, may_stand=True) == RIGID


def test_places_are_in_pixels_of_the_video_however_wide_it_is() -> None:
    """Motion is measured in pictures of at most 384 columns."""
    wall = np.random.default_rng(0).integers(0, 256, (25, 120, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    path, mask = CameraPath(), np.zeros((200, 800), bool)
    mask[20:190, 300:360] = True
    for t in range(3):
        path.add(t, wall[:, 24 * t : 24 * t + 800], mask)
    places = path.places([blob for t in range(3) for blob in find_blobs(mask, t, 48)])
    np.testing.assert_allclose(places, [(300 + 24 * t, 20, 60, 170) for t in range(3)], atol=1)


@pytest.mark.slow
def test_places_are_those_before_the_wall() -> None:
    """The camera turns by more than the width of the picture, over several references."""
    scene = Scene([person(70, 1.2, identity=2)], 100, SIZE, pan=2.0)
    path, bodies = CameraPath(), []
    for t, (frame, mask) in enumerate(zip(scene.frames(), scene.masks(), strict=True)):
        path.add(t, frame, mask)
        bodies += [b for b in find_blobs(mask, t, 60) if not b.touches_border]
    places = path.places(bodies)
    assert places is not None
    middles = places[:, 0] + places[:, 2] / 2
    true = np.array([70 + 1.2 * b.frame for b in bodies])
    # The middle of the box moves with the arms and legs by at most a sixth of the height.
    np.testing.assert_allclose(middles - middles[0], true - true[0], atol=80 / 6)
    np.testing.assert_allclose(places[:, 3], [b.height for b in bodies], rtol=0.02)


def test_a_short_walk_after_a_long_stand_is_a_walk() -> None:
    walk = render(0, view=90, frames=40)
    track = np.concatenate([np.repeat(walk[:1], 2000, axis=0), walk])
    assert change_of_legs(track) < LEAST_CHANGE < largest_change_of_legs(track)
    assert largest_change_of_legs(walk[:5]) == change_of_legs(walk[:5])
    assert objection(None, track) == RIGID
    assert objection(None, track, may_stand=True) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "mean=0.5&std=5",
            "0 of them show what onnx:open_sizes.onnx takes for people; onnx:.* finds nobody",
        ),
        (
            "mean=-9&std=0.05",
            "in 40 frames onnx:open_sizes.onnx takes more than half of the picture for people",
        ),
    ],
    ids=["nobody", "everything"],
)
def test_advice_names_the_options_of_the_model(options: str, message: str, walk: Path) -> None:
    with pytest.raises(SilhouetteError, match=message):
        extract(walk, segmenter=f"{MODEL}?{options}")


def test_a_rate_above_the_video_is_refused_before_the_model_runs(walk: Path) -> None:
    class Untouched:
        name, learns, camera_may_move = "untouched", False, True

        def foreground(self, frame: object) -> None:
            raise AssertionError

    with pytest.raises(SilhouetteError, match="fps: expected at most the video's 25 a second, got 30"):
        extract(walk, fps=30, segmenter=Untouched())  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_open_segmenter_serves_several_videos(walk: Path, tmp_path: Path) -> None:
    scene = followed(pan=0.0)
    other = write(tmp_path / "other.avi", scene)
    for opened, named in ((open_segmenter(MODEL), MODEL), (open_segmenter("background"), "background")):
        if opened.camera_may_move:
            extract(walk, segmenter=opened)
        (one,), (two,) = extract(other, segmenter=opened), extract(other, segmenter=named)
        np.testing.assert_array_equal(one.silhouettes, two.silhouettes)


def test_a_background_is_learnt_first() -> None:
    with pytest.raises(RuntimeError, match="call of foreground before learn"):
        open_segmenter("background").foreground(np.zeros((8, 8, 3), np.uint8))


def test_the_command_takes_a_segmenter_and_its_output_names_it(walk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("silhouettes", walk, "-o", out, "--segmenter", MODEL)
    description = json.loads((out / "tracks.json").read_text())
    assert description["stages"]["segmenter"] == "onnx:open_sizes.onnx"
    unsaid = f"onnx:{FOLDER / 'labels.onnx'}"
    refused = run("silhouettes", walk, "-o", out, "--overwrite", "--segmenter", unsaid, exit_code=1)
    assert "add an option, such as ?class=1" in " ".join(refused.output.split())
    assert json.loads((out / "tracks.json").read_text()) == description


def test_advice_for_a_model_asks_for_no_other_background() -> None:
    learnt, model = Stages(frames=9), Stages(frames=9, segmenter="onnx:m.onnx")
    for stages in (learnt, model):
        stages.rejections["not of a standing person's shape, or torn"] = 5
    assert "background" in learnt.advice(0.0, 30, 48)
    assert "background" not in model.advice(0.0, 30, 48)
    model.rejections[TOO_SHORT] = 7
    assert "min_frames" in model.advice(0.0, 30, 48)
    assert "--segmenter onnx:MODEL.onnx" in learnt.advice(2.0, 30, 48)
