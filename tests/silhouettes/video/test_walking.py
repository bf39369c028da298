"""Which tracks show one walking person: rendered walkers do, things, still figures and pairs do not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import align
from hstl_fast.silhouettes.video.rejections import MOTIONLESS, PAIR, RIGID
from hstl_fast.silhouettes.video.walking import (
    LEAST_CHANGE,
    change_of_legs,
    moves,
    objection,
    one_head,
    shows_two_people,
    two_heads,
)
from hstl_fast.silhouettes.walkers import render

FRAMES = 60


def boxes(speed: float = 3.0, growth: float = 1.0, count: int = FRAMES, height: float = 100.0) -> NDArray[np.intp]:
    """Boxes of somebody who crosses the picture, and whose width changes with the steps."""
    t = np.arange(count)
    heights = height * growth**t
    widths = heights * (0.4 + 0.1 * np.sin(0.6 * t))
    return np.stack([200 + speed * t - widths / 2, 200 - heights, widths, heights], axis=1).round().astype(np.intp)


def beside(other: NDArray[np.uint8], one: NDArray[np.uint8], columns: int, share: float) -> NDArray[np.uint8]:
    """Two aligned walkers as one silhouette, the other one lower by a factor and so many of 64 columns beside."""
    pairs = []
    for a, b in zip(one, other, strict=True):
        low = align(b, round(64 * share)) if share < 1 else b
        padded = np.pad(low, ((64 - len(low), 0), ((64 - low.shape[1]) // 2,) * 2))
        padded = np.pad(padded, ((0, 0), (0, 64 - padded.shape[1])))
        pairs.append(align(np.maximum(a, np.roll(padded, columns, axis=1))))
    return np.stack(pairs)


@pytest.mark.parametrize("view", [0, 36, 90, 180])
@pytest.mark.parametrize(("identity", "condition"), [(0, "nm"), (2, "bg"), (5, "cl")])
def test_walkers_are_walkers(view: int, identity: int, condition: str) -> None:
    silhouettes = render(identity, view=view, condition=condition, frames=FRAMES)
    assert objection(boxes(), silhouettes) == ""
    assert change_of_legs(silhouettes) > 1.2 * LEAST_CHANGE


@pytest.mark.parametrize("height", [40.0, 200.0])
def test_moving_is_measured_in_heights_of_the_body(height: float) -> None:
    assert moves(boxes(0.01 * height, height=height))
    assert not moves(boxes(0.004 * height, height=height))


def test_specks_beside_the_body_are_no_heads() -> None:
    for identity in (0, 1, 2, 6):
        silhouettes = render(identity, view=90, condition="bg", frames=30, noise=0.3)
        assert objection(boxes(count=30), silhouettes) == ""


def test_growing_and_shrinking_is_moving() -> None:
    assert moves(boxes(0.0, growth=1.01))
    assert moves(boxes(0.0, growth=1 / 1.01))
    assert not moves(boxes(0.0))


def test_somebody_who_pauses_moves() -> None:
    assert moves(np.concatenate([boxes(2.0, count=30), np.repeat(boxes(2.0, count=30)[-1:], 200, axis=0)]))


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_short_tracks_are_judged_by_their_speed(count: int) -> None:
    assert moves(boxes(0.0, count=count)) is False
    if count > 5:
        assert moves(boxes(2.7, count=count))
        assert objection(boxes(2.7, count=count), render(0, frames=count)) == ""


def test_figures_that_stand_still_are_no_walkers() -> None:
    still = np.repeat(render(1, frames=1), FRAMES, axis=0)
    assert objection(np.repeat(boxes()[:1], FRAMES, axis=0), still) == MOTIONLESS


@pytest.mark.parametrize("jagged", [0, 1])
def test_things_of_a_persons_shape_are_no_walkers(jagged: int) -> None:
    """The edges of a small thing are a pixel farther out in some frames."""
    things = np.zeros((FRAMES, 64, 64), np.uint8)
    things[:, :, 20:44] = 255
    shaky = np.random.default_rng(0).integers(0, 1 + jagged, FRAMES)
    for thing, shift in zip(things, shaky, strict=True):
        thing[:, 20 : 20 + shift] = 0
    assert objection(boxes(), things) == RIGID
    still = np.repeat(render(1, frames=1), FRAMES, axis=0)
    assert objection(boxes(), still) == RIGID


@pytest.mark.parametrize(("columns", "share"), [(8, 1.0), (13, 1.0), (20, 1.0), (8, 0.85), (13, 0.7), (14, 0.6)])
def test_two_people_side_by_side_are_no_walker(columns: int, share: float) -> None:
    pair = beside(render(2, frames=FRAMES), render(1, frames=FRAMES), columns, share)
    assert objection(boxes(), pair) == PAIR


def test_two_people_side_by_side_who_come_towards_the_camera_are_no_walker() -> None:
    for columns in (9, 12, 18):
        pair = beside(render(2, view=0, frames=FRAMES), render(1, view=0, frames=FRAMES), columns, 1.0)
        assert shows_two_people(pair)


def test_a_raised_arm_is_no_second_head() -> None:
    silhouettes = render(1, view=0, frames=FRAMES)
    silhouettes[20:26, :30, 44:48] = 255
    assert not two_heads(silhouettes).any()


def test_a_second_head_for_a_moment_is_nobody() -> None:
    """Something as high as a person stands beside, such as a post that was not learnt as background."""
    silhouettes = render(1, view=0, frames=FRAMES)
    silhouettes[20:26, :, 44:48] = 255
    assert np.flatnonzero(two_heads(silhouettes)).tolist() == list(range(20, 26))
    assert one_head(silhouettes).all()
    assert not shows_two_people(silhouettes)


def test_frames_with_a_second_head_are_left_out_of_a_walk() -> None:
    single, double = render(1, frames=100), beside(render(2, frames=30), render(1, frames=30), 18, 1.0)
    kept = one_head(np.concatenate([single, double]))
    assert kept[:97].all()
    assert not kept[103:].any()
