"""The background of a camera that goes on: learnt again and again, and anew when the light changes."""

from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")

from hstl_fast.recognition.live import background
from hstl_fast.recognition.live.background import FARTHEST, PATIENCE, SAMPLES, RunningBackground
from hstl_fast.silhouettes import SilhouetteWarning

Picture = NDArray[np.uint8]
FPS = 10
SIZE = (60, 80)


def wall(seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(60, 180, (*SIZE, 3), np.uint8)


def noisy(picture: Picture, number: int) -> Picture:
    noise = np.random.default_rng(number).integers(-3, 4, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def with_body(picture: Picture) -> Picture:
    changed = picture.copy()
    changed[10:50, 30:45] = 255 - changed[10:50, 30:45] // 4
    return changed


def share(running: RunningBackground, picture: Picture, number: int) -> float | None:
    """The share of the body's place that is foreground."""
    seen = running.foreground(noisy(picture, number), number / FPS)
    return None if seen is None else float(seen.mask[12:48, 32:43].mean())


def test_the_first_seconds_are_learnt() -> None:
    running = RunningBackground(30, waits=True)
    shares = [share(running, wall(), number) for number in range(20)]
    assert shares == [None] * 20
    assert share(running, with_body(wall()), 20) == pytest.approx(1.0, abs=0.05)
    assert running.learnt == 1
    running.close()


@pytest.mark.slow
def test_somebody_who_stands_becomes_background_and_no_sooner_than_he_stands_half_of_the_time() -> None:
    running = RunningBackground(30, waits=True)
    shares: list[float | None] = []
    for number in range(340):
        shares.append(share(running, with_body(wall()) if number >= 60 else wall(), number))
    seen = np.array([value is not None and value > 0.5 for value in shares[60:]])
    assert seen[:50].all()
    assert not seen[-15:].any()
    running.close()


@pytest.mark.slow
def test_another_light_is_learnt_within_seconds() -> None:
    running = RunningBackground(30, waits=True)
    empty: list[float] = []
    for number in range(320):
        picture = wall(0 if number < 250 else 1)
        seen = running.foreground(noisy(picture, number), number / FPS)
        empty.append(1.0 if seen is None else float(seen.mask.mean()))
    assert max(empty[30:250]) < 0.05
    assert empty[251] > 0.5
    assert max(empty[250 + round((PATIENCE + background.FIRST) * FPS) + 2 :]) < 0.05
    running.close()


def test_learning_beside_gives_the_same_background_a_little_later() -> None:
    running = RunningBackground(30, waits=False)
    number = 0
    while share(running, wall(), number) is None:  # the clock of the frames does not wait
        number += 1
        assert number < 100_000
    assert number >= 20
    assert share(running, with_body(wall()), number + 1) == pytest.approx(1.0, abs=0.05)
    running.close()


@pytest.mark.slow
def test_few_frames_are_held_however_long_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LONGEST", 400.0)
    running, picture, held = RunningBackground(30, waits=True), wall(), []
    for number in range(1800):
        running.foreground(picture, number / FPS)
        held.append((len(running._samples), len(running._pairs)))
    samples, pairs = zip(*held, strict=True)
    assert max(samples) == SAMPLES
    assert max(pairs) <= SAMPLES
    span = running._samples[-1][0] - running._samples[0][0]
    assert 0.9 < span / (SAMPLES * FARTHEST) < 1.1
    running.close()


def test_a_clock_that_goes_back_begins_anew() -> None:
    running = RunningBackground(30, waits=True)
    for number in range(25):
        share(running, wall(), number)
    assert share(running, wall(), 3) is not None
    assert len(running._samples) == 1
    running.close()


@pytest.mark.slow
def test_a_moving_camera_is_named_once() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (60, 400, 3), np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    running = RunningBackground(30, waits=True)
    views = [np.ascontiguousarray(wide[:, 4 * number : 4 * number + 200]) for number in range(60)]
    with pytest.warns(SilhouetteWarning, match="the camera moves") as said:
        deque(running.foreground(view, number / FPS) for number, view in enumerate(views))
    assert running.learnt == 2
    assert len(said) == 1
    running.close()
