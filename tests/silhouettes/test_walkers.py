"""Rendered walkers: the same pixels everywhere, as much body as real silhouettes, hard for a plain mean over frames and
yet people who can be told apart."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import astuple
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import align, walkers
from hstl_fast.silhouettes.walkers import CASIA_B_TAKES, CASIA_B_VIEWS, body, gait, raster, recordings, render
from hstl_fast.silhouettes.walkers.noise import spoil

Clip = NDArray[np.uint8]
Floats = NDArray[np.float64]
PROBES = {"NM": ("nm-05", "nm-06"), "BG": ("bg-01", "bg-02"), "CL": ("cl-01", "cl-02")}
GALLERY = ("nm-01", "nm-02", "nm-03", "nm-04")


def cropped(clip: Clip) -> Clip:
    """The 64 x 44 that a network sees."""
    return clip[:, :, 10:54]


def assorted() -> Iterable[Clip]:
    """Clips from all over the range of arguments."""
    for i in range(16):
        condition = ("nm", "bg", "cl")[i % 3]
        yield render(3 * i, view=37.5 * i % 181, condition=condition, take=1 + i % 4, frames=9, noise=0.25 * (i % 5))


def digest(clips: Iterable[Clip]) -> str:
    return hashlib.sha256(b"".join(clip.tobytes() for clip in clips)).hexdigest()


def test_pixels_are_frozen() -> None:
    assert digest(assorted()) == "7763f3f06dc7c2c307e10475c6b429dd1df38138152c06f6102b92f6ce9f7b1b"


def placed_shapes() -> Floats:
    """Columns, rows and radii of everybody's bones in the picture."""
    figures = [gait.figure(body.recording(i, "nm", 1, 2023), frames=30) for i in range(5)]
    cameras = [raster.Camera(figure, view=36.0 * i) for i, figure in enumerate(figures)]
    return np.concatenate(
        [
            camera.place(bone.start, bone.start_radius)
            for figure, camera in zip(figures, cameras, strict=True)
            for bone in figure.bones
        ]
    )


def test_the_last_bit_of_a_sine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries and processors disagree about it."""

    def one_bit_off(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: np.nextafter(function(x), np.inf)

    pixels, shapes = digest(assorted()), placed_shapes()
    for function in (np.sin, np.cos, np.tan):
        monkeypatch.setattr(np, function.__name__, one_bit_off(function))
    assert np.cos(0.0) > 1
    np.testing.assert_array_equal(placed_shapes(), shapes)
    assert digest(assorted()) == pixels


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("view", [0, 54, 90, 180])
def test_aligned(view: float, noise: float) -> None:
    clip = render(4, view=view, noise=noise, frames=12)
    assert clip.shape == (12, 64, 64)
    assert clip.dtype == np.uint8
    assert clip.max() == 255
    for frame in clip:
        np.testing.assert_array_equal(align(frame), frame)


def test_edges_are_soft() -> None:
    clip = cropped(render(4))
    soft = ((clip > 0) & (clip < 255)).mean()
    assert 0.05 < soft < 0.13


def test_shares_are_those_of_real_silhouettes() -> None:
    """Share of 64 x 44 that is not background, and the same grown by 3 positions in time, rows and columns. Eight
    people, nm / bg / cl, by view: 0: 0.33, 0.52; 36: 0.31, 0.57; 90: 0.29, 0.60; 144: 0.31, 0.57; 180: 0.33, 0.52."""
    views = CASIA_B_VIEWS[::2]
    shares = {
        view: np.mean(
            [
                [(body > 0).mean(), grown(body > 0).mean()]
                for condition in ("nm", "bg", "cl")
                for body in (cropped(render(i, view=view, condition=condition)) for i in range(8))
            ],
            axis=0,
        )
        for view in views
    }
    print({view: share.round(3).tolist() for view, share in shares.items()})
    share, grown_share = np.mean(list(shares.values()), axis=0)
    assert 0.27 < share < 0.32
    assert 0.55 < grown_share < 0.65


def grown(mask: NDArray[np.bool_], by: int = 3) -> NDArray[np.bool_]:
    """A cube of 3 x 3 x 3 as often as `by` is the same as a cube of 1 + 2 `by`, one axis after the other."""
    for axis in range(3):
        grown_once = mask.copy()
        for shift in range(1, by + 1):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(shift, None), slice(None, -shift)
            grown_once[tuple(ahead)] |= mask[tuple(behind)]
            grown_once[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown_once
    return mask


def energy_images(identities: int, views: Iterable[float], takes: Iterable[str]) -> dict[tuple[str, float], Floats]:
    """The mean over frames of every clip, `[identities, 64 * 44]` by take and view."""
    clips = recordings(range(identities), views=views, takes=takes)
    by_take: dict[tuple[str, float], list[Floats]] = {}
    for clip in clips:
        by_take.setdefault((clip.take, clip.view), []).append(cropped(clip.silhouettes).mean(axis=0).ravel() / 255)
    return {key: np.stack(rows) for key, rows in by_take.items()}


def rank_one(probe: Floats, gallery: Floats) -> float:
    """Share of probes whose nearest row of the gallery is of the same person; both hold everybody in order, once or
    more often."""
    squares = (probe**2).sum(axis=1)[:, None] + (gallery**2).sum(axis=1) - 2 * probe @ gallery.T
    identities = int(np.gcd(len(probe), len(gallery)))
    return float((squares.argmin(axis=1) % identities == np.arange(len(probe)) % identities).mean())


def protocol(
    embeddings: dict[tuple[str, float], Floats], probes: Iterable[str], gallery: Iterable[str]
) -> tuple[float, float]:
    """Rank-1 across views (identical views excluded, as on CASIA-B) and within a view."""
    views = sorted({view for _, view in embeddings})
    rates = np.array(
        [
            [
                np.mean(
                    [
                        rank_one(embeddings[probe, seen], np.concatenate([embeddings[take, known] for take in gallery]))
                        for probe in probes
                    ]
                )
                for known in views
            ]
            for seen in views
        ]
    )
    same = np.eye(len(views), dtype=bool)
    return float(rates[~same].mean()), float(rates[same].mean())


def test_energy_images_find_it_hard_across_views() -> None:
    """Mean over frames, nearest neighbour, 20 people (chance: 0.05), every second view, half of the takes."""
    probes = {"NM": ["nm-05"], "BG": ["bg-01"], "CL": ["cl-01"]}
    gallery = ["nm-01", "nm-02"]
    images = energy_images(
        20, (0, 36, 72, 108, 144), [*gallery, *(take for takes in probes.values() for take in takes)]
    )
    rates = {name: protocol(images, takes, gallery) for name, takes in probes.items()}
    across = {name: rate for name, (rate, _) in rates.items()}
    within = {name: rate for name, (_, rate) in rates.items()}
    assert across == pytest.approx({"NM": 0.35, "BG": 0.26, "CL": 0.23}, abs=0.02)
    assert within == pytest.approx({"NM": 0.98, "BG": 0.71, "CL": 0.49}, abs=0.02)


@pytest.mark.slow
def test_energy_images_on_the_whole_protocol() -> None:
    """All 11 views and all takes, 20 people: rank-1 is below 0.5 everywhere."""
    images = energy_images(20, CASIA_B_VIEWS, CASIA_B_TAKES)
    rates = {name: protocol(images, takes, GALLERY)[0] for name, takes in PROBES.items()}
    assert rates == pytest.approx({"NM": 0.403, "BG": 0.299, "CL": 0.244}, abs=0.01)


@pytest.mark.slow
def test_people_can_be_told_apart_across_views() -> None:
    """It is hard, not hopeless: ridge regression from mean and deviation over frames to the numbers that make a person,
    learnt from 200 other people, names 20 people across views in 0.9 of the cases."""
    views, learnt, tested = (0, 72, 144), range(100, 300), range(20)
    numbers = np.array([numbers_of(i) for i in learnt])
    targets = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0).clip(1e-9)
    predicted = {}
    for view in views:
        samples = np.array([moments(render(i, view=view)) for i in learnt])
        mean = samples.mean(axis=0)
        kernel = (samples - mean) @ (samples - mean).T
        weights = (samples - mean).T @ np.linalg.solve(kernel + 3 * np.eye(len(kernel)), targets)
        for take in (1, 5):
            seen = np.array([moments(render(i, view=view, take=take)) for i in tested])
            predicted[f"nm-{take:02d}", view] = (seen - mean) @ weights
    assert protocol(predicted, ["nm-05"], ["nm-01"])[0] > 0.8


def moments(clip: Clip) -> Floats:
    body = cropped(clip) / 255
    return np.concatenate([body.mean(axis=0).ravel(), body.std(axis=0).ravel()])


def numbers_of(identity: int, condition: str = "nm", take: int = 0) -> Floats:
    """Build, posture and gait of a person (take 0), or of a person in a recording."""
    if take == 0:
        walker = body.person(identity, 2023)
    else:
        walker = body.recording(identity, condition, take, 2023)
    return np.concatenate([astuple(part) for part in (walker.build, walker.posture, walker.gait)])


def test_recordings_of_a_person_are_alike() -> None:
    people = np.array([numbers_of(i) for i in range(50)])
    spread = people.std(axis=0)
    spread[spread == 0] = np.inf
    for condition in ("nm", "bg", "cl"):
        takes = np.array([numbers_of(i, condition, take=2) for i in range(50)])
        assert rank_one(takes / spread, people / spread) == 1


def test_everything_that_is_asked_for_makes_a_difference() -> None:
    clips = [
        render(1),
        render(2),
        render(1, take=2),
        render(1, view=72),
        render(1, view=0),
        render(1, view=180),
        render(1, condition="bg"),
        render(1, condition="bg", take=2),
        render(1, condition="cl"),
        render(1, seed=1),
        render(1, noise=0.2),
    ]
    for a, b in combinations(clips, 2):
        assert (a != b).mean() > 0.01


def test_the_same_walk_from_every_view() -> None:
    """The legs close at the same moments, whoever looks."""
    widths = [(render(6, view=view)[:, 52:] > 127).any(axis=1).sum(axis=1) for view in (60, 90, 120)]
    assert np.corrcoef(widths)[1].min() > 0.8


def test_longer_clips_begin_with_shorter_ones() -> None:
    for noise in (0.0, 0.7):
        np.testing.assert_array_equal(
            render(5, view=30, frames=47, noise=noise)[:8], render(5, view=30, frames=8, noise=noise)
        )
    assert render(5, frames=1).shape == (1, 64, 64)


def test_bags_and_coats_change_the_outline() -> None:
    mass = {
        condition: np.mean([render(i, view=view, condition=condition).mean() for i in range(10) for view in (0, 90)])
        for condition in ("nm", "bg", "cl")
    }
    assert mass["nm"] * 1.02 < mass["bg"]
    assert mass["nm"] * 1.03 < mass["cl"]
    kinds = {walker.bag and walker.bag.kind for walker in (body.recording(i, "bg", 1, 2023) for i in range(30))}
    assert kinds == set(body.BAGS)


def test_a_bag_is_carried_on_either_side() -> None:
    sides = [body.recording(i, "bg", take, 2023).bag for i in range(10) for take in (1, 2)]
    assert {bag.side for bag in sides if bag is not None} == {1, -1}


def test_more_noise_does_more_harm() -> None:
    clean = render(8, view=54)
    harm = [np.abs(render(8, view=54, noise=noise).astype(int) - clean).mean() for noise in (0.1, 0.4, 0.7, 1.0)]
    assert all(less < more for less, more in pairwise([0.5, *harm]))
    assert harm[-1] < 60


def test_faults_come_and_go() -> None:
    """Outside a body that is not there, the only thing that can show is a blob, for five frames at a time."""
    nobody = np.full((200, raster.ROWS, raster.COLUMNS), 100, np.float32)
    blobs = raster.coverage(spoil(nobody, 1.0, (3, 4))) > 127
    present = blobs.any(axis=(1, 2))
    assert 0.2 < present.mean() < 0.9
    np.testing.assert_array_equal(blobs.reshape(40, 5, -1), blobs[::5].reshape(40, 1, -1).repeat(5, axis=1))
    assert len({blob.tobytes() for blob in blobs}) > 10


def test_holes_and_lost_feet_move() -> None:
    """Inside a body that is everywhere, the only thing that can show is what is missing."""
    everywhere = np.full((200, raster.ROWS, raster.COLUMNS), -100, np.float32)
    missing = raster.coverage(spoil(everywhere, 1.0, (3, 4))) < 128
    holes, feet = missing[:, :50], missing[:, 63].all(axis=1)
    assert 0.01 < holes.mean() < 0.1
    assert holes.any(axis=0).mean() > 5 * holes.mean()
    assert 0.1 < feet.mean() < 0.7
    assert not missing[:, :50].all(axis=2).any()


class TestGait:
    """People walk: at 25 frames a second, on their feet, one leg past the other."""

    @pytest.fixture(params=range(6))
    def walker(self, request: pytest.FixtureRequest) -> body.Walker:
        return body.recording(request.param, "nm", 1, 2023)

    @pytest.fixture
    def feet(self, walker: body.Walker) -> list[list[gait.Bone]]:
        """The bones of the left and of the right foot in ten cycles."""
        soles = gait.figure(walker, round(10 * walker.gait.period)).soles
        return [soles[: len(soles) // 2], soles[len(soles) // 2 :]]

    def test_a_cycle_takes_a_second_and_a_bit(self, walker: body.Walker) -> None:
        assert 24 <= walker.gait.period <= 33

    def test_legs_pass_twice_a_cycle(self, feet: list[list[gait.Bone]]) -> None:
        ahead = feet[0][0].start[0] - feet[1][0].start[0]
        assert np.count_nonzero(np.diff(np.sign(ahead))) in (19, 20, 21)
        assert 0.3 < np.ptp(ahead) / 2 < 0.5

    def test_one_foot_is_on_the_ground_and_sometimes_both(self, feet: list[list[gait.Bone]]) -> None:
        heights = [
            np.min([np.minimum(b.start[2] - b.start_radius, b.end[2] - b.end_radius) for b in f], 0) for f in feet
        ]
        down = np.array([height - np.minimum(*heights) < 0.008 for height in heights])
        assert down.any(axis=0).all()
        assert 0.03 < down.all(axis=0).mean() < 0.35
        assert 0.5 < down[0].mean() < 0.68
        assert np.max(heights - np.minimum(*heights)) < 0.2

    def test_arms_go_with_the_other_leg(self, walker: body.Walker) -> None:
        figure = gait.figure(walker, round(5 * walker.gait.period))
        left_foot, left_hand = figure.soles[0].start[0], figure.bones[-5].end[0]
        assert np.corrcoef(left_foot, left_hand)[0, 1] < -0.8


def test_recordings_are_laid_out_like_casia_b() -> None:
    clips = list(recordings([0, 12], views=(0, 90), takes=("nm-01", "cl-02"), frames=2, noise=0.1, seed=5))
    assert [clip.name for clip in clips] == [
        f"{identity}/{take}/{view}"
        for identity in ("000", "012")
        for take in ("nm-01", "cl-02")
        for view in ("000", "090")
    ]
    last = clips[-1]
    expected = render(12, view=90, condition="cl", take=2, frames=2, noise=0.1, seed=5)
    np.testing.assert_array_equal(last.silhouettes, expected)
    assert len(CASIA_B_VIEWS) * len(CASIA_B_TAKES) == 110


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"identity": -1}, ValueError, "identity must be at least 0, got -1"),
        ({"identity": 1.0}, TypeError, "identity must be an integer, got 1.0"),
        ({"identity": True}, TypeError, "identity must be an integer, got True"),
        ({"view": 181}, ValueError, r"view must be in 0\.\.180, got 181"),
        ({"view": float("nan")}, ValueError, r"view must be in 0\.\.180, got nan"),
        ({"view": "090"}, TypeError, "view must be a number, got '090'"),
        ({"condition": "cI"}, ValueError, "condition must be one of nm, bg, cl, got 'cI'; did you mean 'cl'"),
        ({"condition": "NM"}, ValueError, "condition must be one of nm, bg, cl, got 'NM'"),
        ({"take": 0}, ValueError, "take must be at least 1, got 0"),
        ({"frames": 0}, ValueError, "frames must be at least 1, got 0"),
        ({"frames": 2.5}, TypeError, "frames must be an integer, got 2.5"),
        ({"noise": 1.1}, ValueError, r"noise must be in 0\.\.1, got 1\.1"),
        ({"noise": -0.1}, ValueError, r"noise must be in 0\.\.1, got -0\.1"),
        ({"seed": -3}, ValueError, "seed must be at least 0, got -3"),
    ],
)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        render(**{"identity": 0, **arguments})


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ("nm01", "takes must be a condition and a number each, such as nm-01, got 'nm01'"),
        ("mn-01", "the condition of a take must be one of nm, bg, cl, got 'mn'; did you mean 'nm'"),
    ],
)
def test_recordings_refuse_a_bad_take_at_once(take: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recordings([0], takes=["nm-01", take])


@pytest.mark.parametrize(
    ("identities", "others", "message"),
    [
        ([0, -1], {}, "identity must be at least 0, got -1"),
        ([0], {"views": [0, 181]}, r"view must be in 0\.\.180, got 181"),
        ([0], {"takes": ["nm-00"]}, "take must be at least 1, got 0"),
        ([0], {"frames": 0}, "frames must be at least 1, got 0"),
        ([0], {"noise": 2}, r"noise must be in 0\.\.1, got 2"),
        ([0], {"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_recordings_refuse_bad_arguments_at_once(identities: list[int], others: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recordings(identities, **others)


def test_takes_numpy_numbers() -> None:
    np.testing.assert_array_equal(
        walkers.render(np.int64(2), view=np.float32(90), frames=np.int32(2)), render(2, frames=2)
    )
