"""Rendered walkers: the same pixels everywhere, as much body as real silhouettes, and arguments that count."""

import hashlib
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import walkers
from hstl_fast.silhouettes.align import align_bright_rows
from hstl_fast.silhouettes.walkers import CASIA_B_TAKES, CASIA_B_VIEWS, body, gait, raster, recordings, render
from tests.silhouettes.walkers.helpers import Clip, Floats, cropped


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
    """Columns, rows and radii of the bones of some people in the picture."""
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
        np.testing.assert_array_equal(align_bright_rows(frame), frame)


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
    """The legs close at the same moments in every view."""
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
