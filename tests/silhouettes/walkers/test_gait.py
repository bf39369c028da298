"""The body in motion."""

import numpy as np
import pytest

from hstl_fast.silhouettes.walkers import body, gait


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
