"""Cameras that tremble, turn or see no colours, and light that changes, on rendered scenes with known silhouettes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")

import cv2

from hstl_fast.silhouettes import SilhouetteError, SilhouetteWarning, extract
from hstl_fast.silhouettes.video.camera import judge_camera
from hstl_fast.silhouettes.video.foreground import Background, Learnt
from hstl_fast.silhouettes.video.light import cells, light_of, relit
from hstl_fast.silhouettes.video.registration import Reference, registered
from tests.silhouettes.video.scenes import Scene, drifting, switched, walker, write
from tests.silhouettes.video.scoring import score

Picture = NDArray[np.uint8]
SMALL = {"num_frames": 60, "size": (120, 200)}
# Scenes of one walker by what is wrong with them; the lights change where both sides hold enough frames.
FAULTS: dict[str, dict[str, object]] = {
    "tremble": {"tremble": 2.0},
    "tremble before stripes": {"tremble": 2.0, "stripes": 30.0},
    "light switched on": {"light": switched(45)},
    "light switched off": {"light": switched(40, gain=0.6, offset=0.0)},
    "auto-exposure": {"light": drifting(10, 50)},
    "light and tremble": {"tremble": 2.0, "light": switched(45)},
}


def small_scene(**faults: object) -> Scene:
    return Scene([walker(5, 110, 70, speed=3.2, identity=3)], **SMALL, **faults)  # type: ignore[arg-type]


def background_of(frames: list[Picture]) -> Background:
    return Background(Learnt(list(frames), list(zip(frames[:-1:6], frames[1::6], strict=False))), 48)


def mask_iou(scene: Scene) -> float:
    """Mean intersection over union of the foreground and the true silhouette, over frames with the whole body."""
    frames, truths = list(scene.frames()), list(scene.masks())
    background = background_of(frames)
    scores = []
    for t in range(8, 52, 4):
        seen = background.foreground(frames[t])
        truth = truths[t]
        if seen.motion is not None:
            painted = np.repeat(255 * truth[:, :, None].astype(np.uint8), 3, axis=2)
            truth = registered(painted, seen.motion)[:, :, 0] >= 128
        scores.append((seen.mask & truth).sum() / (seen.mask | truth).sum())
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def clean_iou() -> float:
    return mask_iou(small_scene())


@pytest.fixture(scope="module")
def wall() -> Picture:
    return next(Scene([], 1, size=(120, 200)).frames())


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=[] if name in ("tremble", "light switched on") else pytest.mark.slow) for name in FAULTS],
)
def test_foreground_is_nearly_as_good_as_in_a_clean_scene(clean_iou: float, fault: str) -> None:
    assert clean_iou > 0.8
    assert mask_iou(small_scene(**FAULTS[fault])) > clean_iou - 0.05


@pytest.mark.parametrize(
    ("identity", "shadow"),
    [pytest.param(3, 0.0, marks=pytest.mark.slow), (3, 0.35), pytest.param(1, 0.35, marks=pytest.mark.slow)],
)
def test_without_colours_grey_clothes_are_no_shadow_and_shadows_no_body(identity: int, shadow: float) -> None:
    people = [walker(5, 110, 70, speed=3.2, identity=identity, shadow=shadow)]
    assert mask_iou(Scene(people, 60, size=(120, 200), grey=True)) > 0.82


def test_a_steady_camera_in_a_steady_light_is_left_alone() -> None:
    frames = list(small_scene().frames())
    background = background_of(frames)
    assert all(background.foreground(frame).motion is None for frame in frames[::10])
    assert (background.camera.trembles, background.camera.moves, background.lights, background.relit) == (
        False,
        0.0,
        1,
        0,
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.5, -0.75), (-6.0, 9.0)])
def test_motion_is_measured_to_a_fraction_of_a_pixel(wall: Picture, shift: tuple[float, float]) -> None:
    matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    moved = cv2.warpAffine(wall, matrix, wall.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    darker = (0.6 * moved + 20).astype(np.uint8)
    motion = Reference(wall).motion_of(darker)
    assert motion is not None
    np.testing.assert_allclose(motion.matrix, matrix, atol=0.1)
    inner = np.s_[12:-12, 12:-12]
    back = registered(moved, motion)[inner].astype(int)
    assert np.abs(back - wall[inner]).mean() < 3


def test_a_turned_camera_is_registered(wall: Picture) -> None:
    matrix = cv2.getRotationMatrix2D((100, 60), 1.5, 1.0)
    turned = cv2.warpAffine(wall, matrix, wall.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    motion = Reference(wall).motion_of(turned)
    assert motion is not None
    np.testing.assert_allclose(motion.matrix[:, :2], matrix[:, :2], atol=0.005)


def test_motion_is_unknown_without_features(wall: Picture) -> None:
    assert Reference(np.full_like(wall, 128)).motion_of(wall) is None
    other = next(Scene([], 1, size=(120, 200), seed=9).frames())
    assert Reference(wall).motion_of(other) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture * 1.3,
        lambda picture: picture + 30.0,
        lambda picture: picture * 0.6 + 10,
        lambda picture: picture * np.linspace(1.0, 1.5, picture.shape[1])[None, :, None],
        lambda picture: picture * np.array([1.2, 1.0, 0.8]),
    ],
)
def test_light_is_undone_behind_people(wall: Picture, change: Callable[[NDArray[np.floating]], Picture]) -> None:
    lit = change(0.7 * wall.astype(np.float64))
    lit[20:110, 60:95] = 15.0
    frame = lit.clip(0, 255).astype(np.uint8)
    reference = (0.7 * wall.astype(np.float64)).astype(np.uint8)
    light = light_of(cells(frame), cells(reference))
    assert light.changed
    normal = relit(frame, light).astype(int)
    behind = np.ones(wall.shape[:2], bool)
    behind[18:112, 58:97] = False
    assert np.abs(normal - reference)[behind].mean() < 2
    assert (reference - normal)[25:105, 65:90].mean() > 40


def test_people_alone_change_no_light(wall: Picture) -> None:
    frame = wall.copy()
    frame[20:110, 60:95] = 15
    light = light_of(cells(frame), cells(wall))
    assert not light.changed
    assert relit(frame, light) is frame


def test_another_lamp_has_a_background_of_its_own(wall: Picture) -> None:
    rng = np.random.default_rng(0)
    cast = np.kron(rng.uniform(0.4, 1.6, (6, 10)), np.ones((20, 20)))[:, :, None]
    other = (wall * cast).clip(0, 255)
    frames = [
        (picture + rng.normal(0, 2, wall.shape)).clip(0, 255).astype(np.uint8) for picture in [wall] * 30 + [other] * 12
    ]
    background = background_of(frames)
    assert background.lights == 2
    for frame in (frames[3], frames[-3]):
        with_body = frame.copy()
        with_body[30:100, 80:104] = 5
        mask = background.foreground(with_body).mask
        assert mask[33:97, 83:101].all()
        mask[29:101, 79:105] = False
        assert mask.mean() < 0.003


@pytest.mark.parametrize("speed", [pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_a_turning_camera_is_known_by_its_speed(speed: float) -> None:
    frames = list(Scene([], 80, size=(120, 200), pan=speed).frames())
    camera = judge_camera(frames, list(zip(frames[:-1:8], frames[1::8], strict=False)))
    assert camera.moves == pytest.approx(speed, abs=0.1)


def test_a_moving_camera_is_named_with_its_speed(tmp_path: Path) -> None:
    scene = Scene([walker(20, 110, 70, identity=3)], 60, size=(120, 200), pan=3.0)
    with (
        pytest.warns(SilhouetteWarning, match=r"pan\.avi: the camera moves: about 3\.\d pixels from frame to frame"),
        pytest.raises(SilhouetteError, match=r"no track of 30 frames.*the camera moves: about 3\.\d pixels"),
    ):
        extract(write(tmp_path / "pan.avi", scene))


def found(folder: Path, **faults: object) -> tuple[int, float]:
    """Frames in which a walker is found, and the mean intersection over union with his true silhouettes."""
    people = [walker(-15, 205, 100, identity=1)]
    scene = Scene(people, 162, size=(240, 480), **faults)  # type: ignore[arg-type]
    tracks = extract(write(folder / "scene.avi", scene))
    (figure,) = score(scene, [(t.frames, t.boxes, t.silhouettes) for t in tracks]).figures
    return figure.frames, figure.iou


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, float]:
    return found(tmp_path_factory.mktemp("clean"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_cost_less_than_a_tenth_of_the_frames(tmp_path: Path, clean: tuple[int, float], fault: str) -> None:
    disturbed = found(tmp_path, **FAULTS[fault])
    assert clean[0] > 140
    assert disturbed[0] > 0.9 * clean[0]
    assert disturbed[1] > clean[1] - 0.05


@pytest.mark.slow
def test_most_of_a_walk_is_found_without_colours(tmp_path: Path) -> None:
    frames, iou = found(tmp_path, grey=True)
    assert frames >= 110
    assert iou > 0.84
