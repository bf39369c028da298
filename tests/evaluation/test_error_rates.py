"""Error rates of trials: against counting by hand, closed forms of planted distributions, and what cannot be told."""

from statistics import NormalDist

import numpy as np
import pytest

from hstl_fast.evaluation.error_rates import Trials, binomial_end, measure


def trials(genuine: np.ndarray, impostor: np.ndarray, people: int = 10, others: np.ndarray | None = None) -> Trials:
    """Genuine comparisons of the first `people` people in turn, impostor comparisons of as many others."""
    group = np.repeat([0, 1], people)
    mine, theirs = np.arange(len(genuine)) % people, people + np.arange(len(impostor)) % people
    return Trials(np.asarray(genuine, float), mine, np.asarray(impostor, float), theirs, others, group)


def counted(genuine: np.ndarray, impostor: np.ndarray, rate: float) -> tuple[float, float]:
    """The most genuine comparisons that a threshold accepts with no more than `rate` of the impostors, one by one."""
    best = (0.0, 0.0)
    for threshold in sorted({*genuine[np.isfinite(genuine)].tolist(), *impostor.tolist()}):
        false = sum(d <= threshold for d in impostor.tolist()) / len(impostor)
        true = sum(d <= threshold for d in genuine.tolist()) / len(genuine)
        if false <= rate + 1e-12:
            best = max(best, (true, false))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_points_are_those_of_counting_at_every_threshold(seed: int) -> None:
    random = np.random.default_rng(seed)
    genuine, impostor = random.integers(0, 12, 40).astype(float), random.integers(4, 20, 50).astype(float)
    genuine[:5] = np.inf  # misidentified: no threshold accepts them
    for point in measure(trials(genuine, impostor), (0.02, 0.1, 0.29, 0.5), resamples=1).points:
        true, false = counted(genuine, impostor, point.asked)
        assert point.true_accept == true
        assert np.mean(impostor <= point.threshold) == point.false_accept == point.accepted / 50
        assert np.mean(genuine <= point.threshold) == true
        assert false <= point.false_accept <= point.asked  # as many impostors as the rate allows


def test_curves_are_monotonous_and_end_where_everything_is_accepted() -> None:
    random = np.random.default_rng(0)
    found = measure(trials(random.normal(0, 1, 300), random.normal(1, 1, 400)), resamples=50)
    curve = found.curve
    for values in (curve.false_accept, curve.true_accept, curve.threshold, curve.low, curve.high):
        assert (np.diff(values) >= 0).all()
    assert (curve.false_accept[0], curve.false_accept[-1]) == (1 / 400, 1)
    assert curve.true_accept[-1] == 1
    assert ((curve.low <= curve.true_accept) & (curve.true_accept <= curve.high)).all()
    points = found.points[1:]
    assert points[0].threshold < points[1].threshold
    assert points[0].true_accept <= points[1].true_accept


def test_equal_error_rate_of_two_normal_distributions() -> None:
    # With distances N(0, 1) and N(d, 1) both errors are Phi(-d / 2) at d / 2. At that threshold each is the mean of n
    # independent trials, off by more than sqrt(log(2 / alpha) / 2 n) with a probability below alpha (Hoeffding), and
    # the rate where they cross lies between the two.
    n, alpha = 4000, 1e-9
    bound = np.sqrt(np.log(2 / alpha) / (2 * n))
    for distance in (1.0, 2.0, 3.0):
        random = np.random.default_rng(round(distance))
        rates = trials(random.normal(0, 1, n), random.normal(distance, 1, n), people=200)
        found = measure(rates, resamples=1).equal_error_rate
        assert abs(found - NormalDist().cdf(-distance / 2)) < bound


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        ([1, 2], [3, 4], 0.0),
        ([3, 4], [1, 2], 1.0),
        ([1, 3], [2, 4], 0.5),
        ([1, 1], [1, 1], 0.5),
        ([1, 2, 3, 6], [4, 5, 7, 8], 0.25),  # of the thresholds from 4 on, 4 accepts one impostor and loses one
        ([1, 2, np.inf, np.inf], [3, 4, 5, 6], 0.5),
    ],
)
def test_equal_error_rates_by_hand(genuine: list[float], impostor: list[float], expected: float) -> None:
    found = measure(trials(np.array(genuine), np.array(impostor), people=2), resamples=1)
    assert found.equal_error_rate == pytest.approx(expected, abs=1e-15)


def test_intervals_cover_rates_of_people_who_differ() -> None:
    # Each person has his own share of accepted recordings, so his 20 recordings tell less than 20 people would: of the
    # 95 % intervals of 40 populations, that resample recordings, about two in three would miss.
    random, hits, narrow = np.random.default_rng(0), 0, 0
    mean, people, each = 0.5, 40, 20
    for seed in range(40):
        share = random.beta(1, 1, people)
        genuine = np.where(random.random((each, people)) < share, 0.0, 2.0).ravel()
        made = trials(genuine, np.ones(people * each), people)
        (point,) = measure(made, (0.5,), seed=seed, resamples=80, points=2).points
        low, high = point.true_accept_interval
        hits += low <= mean <= high
        deviation = 1.96 * np.sqrt(point.true_accept * (1 - point.true_accept) / genuine.size)
        narrow += abs(point.true_accept - mean) <= deviation
    # 40 intervals of 95 % hit at least 32 times with a probability above 0.999.
    assert hits >= 32
    assert narrow < 28


def test_comparisons_of_two_people_count_as_often_as_both_are_drawn() -> None:
    # Where one of two gallery people is taken for everybody, rates hang on how often he is drawn.
    people, known = 40, 2
    impostor, others = np.tile([0.0, 2.0], people), np.tile([0, 1], people)
    group = np.array([0] * known + [1] * people)
    who = known + np.repeat(np.arange(people), 2)
    made = Trials(np.ones(2), np.arange(2), impostor, who, others, group)
    (point,) = measure(made, (0.5,), resamples=200).points
    assert point.false_accept == 0.5
    assert point.false_accept_interval == (0.0, 1.0)
    alone = Trials(np.ones(2), np.arange(2), impostor, who, None, group)
    assert measure(alone, (0.5,), resamples=200).points[0].false_accept_interval == (0.5, 0.5)


def test_the_same_seed_gives_the_same_intervals() -> None:
    random = np.random.default_rng(0)
    made = trials(random.normal(0, 1, 60), random.normal(2, 1, 60))
    first, again, other = (measure(made, (0.1,), seed=seed, resamples=30).points[0] for seed in (1, 1, 2))
    assert first == again
    assert first.true_accept_interval != other.true_accept_interval


def test_what_was_never_seen_is_bounded_by_people() -> None:
    found = measure(trials(np.zeros(500), np.ones(500), people=10), (0.001, 0.01), resamples=20)
    few, enough = found.points
    assert few.threshold is None  # one of 500 is 0.2 %
    assert few.true_accept is few.true_accept_interval is few.false_accept is None
    assert enough.true_accept == 1
    assert enough.true_accept_interval == pytest.approx((0.025 ** (1 / 10), 1))
    assert enough.false_accept == 0  # impostors that are equally far are accepted together
    assert enough.false_accept_interval == pytest.approx((0, 1 - 0.025 ** (1 / 10)))
    assert found.equal_error_interval == pytest.approx((0, binomial_end(10)))


def test_one_person_gives_no_intervals() -> None:
    found = measure(trials(np.arange(5.0), np.arange(5.0), people=1), (0.5,), resamples=20)
    assert found.points[0].true_accept is not None
    assert found.points[0].true_accept_interval is found.equal_error_interval is None
    assert np.isnan(found.curve.low).all()


def test_bad_input() -> None:
    good, none = np.ones(3), np.empty(0)
    with pytest.raises(ValueError, match="expected genuine comparisons to count errors in, got none"):
        measure(trials(none, good))
    with pytest.raises(ValueError, match="expected impostor comparisons to count errors in, got none"):
        measure(trials(good, none))
    with pytest.raises(ValueError, match="impostor distances must be numbers; got NaN at 1"):
        measure(trials(good, np.array([1, np.nan, 2])))
    for rate in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"must be more than 0 and less than 1, such as 0\.01 for 1 %; got"):
            measure(trials(good, good), (rate,))
