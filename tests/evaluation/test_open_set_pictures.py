"""Pictures of open-set evaluations: which there are, and that they show the numbers."""

from statistics import NormalDist

import numpy as np
import pytest

from hstl_fast.evaluation import open_set_pictures
from hstl_fast.evaluation.error_rates import Trials, measure
from hstl_fast.evaluation.open_set import OpenSet
from hstl_fast.evaluation.open_set_pictures import NAMES, deviates, draw_pictures, draw_sheet

pytest.importorskip("matplotlib", reason="needs the extra [plot]")


@pytest.fixture(scope="module")
def results() -> dict[str, OpenSet]:
    found = {}
    for name, distance in (("near", 1.0), ("far", 3.0)):
        group, places = np.repeat([0, 1], 20), (np.arange(400) + 0.5) / 400
        genuine = np.array([NormalDist().inv_cdf(place) for place in places])
        trials = Trials(genuine, np.arange(400) % 20, genuine + distance, 20 + np.arange(400) % 20, None, group)
        rates = measure(trials, resamples=30)
        found[name] = OpenSet("euclidean", {}, 1.0, rates, rates, ())
    return found


@pytest.mark.slow
def test_every_picture_is_drawn_and_the_same_again(results: dict[str, OpenSet]) -> None:
    pictures = draw_pictures(results)
    assert tuple(pictures) == NAMES
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    assert draw_sheet(results, ".svg") == draw_sheet(results, ".svg")


def test_roc_shows_the_rates(results: dict[str, OpenSet]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    open_set_pictures._roc(axes, "identification", {name: each.identification for name, each in results.items()})
    for line, result in zip(axes.lines, results.values(), strict=True):
        curve = result.identification.curve
        assert np.array_equal(line.get_xydata(), 100 * np.stack([curve.false_accept, curve.true_accept], 1))
    band = axes.collections[0].get_paths()[0].vertices
    assert np.isin(100 * results["near"].identification.curve.low, band[:, 1]).all()
    assert axes.get_xscale() == "log"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0] == f"near, EER {100 * results['near'].identification.equal_error_rate:.1f} %"


def test_det_is_a_line_of_slope_minus_one_for_normal_distributions(results: dict[str, OpenSet]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    open_set_pictures._det(axes, "verification", {name: each.verification for name, each in results.items()})
    for line, distance in zip(axes.lines[:2], (1.0, 3.0), strict=True):
        x, y = line.get_xydata().T
        middle = (np.abs(x) < 2) & (np.abs(y) < 2)
        # Deviates of two unit normals sum to minus their distance; two shares of 400 are off by one of 400 each, and
        # the density at 2 deviates is 0.054.
        assert middle.sum() > 5
        assert np.abs(x + y + distance)[middle].max() < 2 / 400 / 0.054
    ticks = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert ticks["5"] == NormalDist().inv_cdf(0.05)
    assert "0.01" not in ticks  # below one of 400


def test_deviates_of_0_and_1_are_drawn_at_the_edge() -> None:
    found = deviates(np.array([0.0, 0.5, 1.0, np.nan]), 0.01)
    assert found[:3] == pytest.approx([NormalDist().inv_cdf(0.01), 0, NormalDist().inv_cdf(0.99)])
    assert np.isnan(found[3])


@pytest.mark.slow
def test_curves_without_intervals_are_drawn() -> None:
    group = np.array([0, 1])
    trials = Trials(np.arange(4.0), np.zeros(4, int), np.arange(4.0) + 2, np.ones(4, int), None, group)
    rates = measure(trials)
    assert np.isnan(rates.curve.low).all()
    assert set(draw_pictures({"one": OpenSet("euclidean", {}, 1.0, rates, rates, ())})) == set(NAMES)
