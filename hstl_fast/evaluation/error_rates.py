"""Rates of false and of true accepts over all thresholds of a distance, with intervals that resample people.

Recordings of one person resemble each other: a walker who is taken for somebody else once is likely to be so again.
Resampling recordings, as if each told something new, gives intervals that are too narrow; so people are resampled, each
with all that belongs to him. A comparison of two people counts as often as both of them are drawn together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The false-accept rates that are reported where nobody asks for others.
RATES = (0.001, 0.01, 0.1)
CONFIDENCE = 0.95
RESAMPLES = 1000
# Points of a curve, equally far apart in the logarithm of the false-accept rate.
CURVE_POINTS = 101
# Intervals from fewer people than that are known to be too narrow.
FEW_PEOPLE = 20
# The share of a comparison by which a product of floats may miss a whole number of them.
_SLACK = 1e-9


class Interval(NamedTuple):
    """A confidence interval of 95 %; both ends are shares from 0 to 1."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Trials:
    """Comparisons that should be accepted, and comparisons that should not. Smaller distances are accepted first.

    Attributes:
        genuine: Distances of comparisons with the same person, float64 `[m]`; infinite where no threshold accepts.
        genuine_people: The number of the person of each, int `[m]`, from 0.
        impostor: Distances of comparisons with anybody else, float64 `[q]`.
        impostor_people: The number of the person who is compared, int `[q]`.
        others: The number of the person whom he is compared with, int `[q]`, where that is one person; else None.
        group: The group of each person, int `[G]`: people are resampled within their group, whose size was chosen and
            not found.
    """

    genuine: NDArray[np.float64]
    genuine_people: NDArray[np.intp]
    impostor: NDArray[np.float64]
    impostor_people: NDArray[np.intp]
    others: NDArray[np.intp] | None
    group: NDArray[np.intp]


@dataclass(frozen=True)
class Point:
    """The errors of a threshold that is chosen for a false-accept rate.

    Attributes:
        asked: The false-accept rate that was asked for.
        threshold: The largest distance that is accepted, or None where the trials are too few to tell the rate.
        accepted: How many impostor comparisons are accepted.
        false_accept: The share of impostor comparisons that are accepted, at most what was asked; None as above.
        false_accept_interval: Its interval at this threshold.
        true_accept: The share of genuine comparisons that are accepted; None as above.
        true_accept_interval: Its interval, which covers the choice of the threshold, too.
    """

    asked: float
    threshold: float | None
    accepted: int
    false_accept: float | None
    false_accept_interval: Interval | None
    true_accept: float | None
    true_accept_interval: Interval | None


@dataclass(frozen=True, eq=False)
class Curve:
    """The receiver operating characteristic: the largest true-accept rate for each false-accept rate.

    Attributes:
        false_accept: False-accept rates, increasing, from one comparison's share to 1, `[t]`.
        true_accept: True-accept rates `[t]`.
        low: The lower ends of their intervals, NaN where there are none.
        high: The upper ends.
        threshold: The largest distance that is accepted, `[t]`.
    """

    false_accept: NDArray[np.float64]
    true_accept: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    threshold: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """The error rates of some trials.

    Attributes:
        genuine: How many genuine comparisons there are.
        impostors: How many impostor comparisons.
        genuine_people: The people of the genuine comparisons.
        impostor_people: The people who are compared in the impostor comparisons.
        points: The rates at the false-accept rates that were asked for, in their order.
        equal_error_rate: Where false accepts are as frequent as false rejects.
        equal_error_interval: Its interval, or None.
        curve: All rates.
    """

    genuine: int
    impostors: int
    genuine_people: int
    impostor_people: int
    points: tuple[Point, ...]
    equal_error_rate: float
    equal_error_interval: Interval | None
    curve: Curve


def measure(
    trials: Trials,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    resamples: int = RESAMPLES,
    points: int = CURVE_POINTS,
) -> ErrorRates:
    """Compute the error rates of trials.

    The threshold for a false-accept rate is the largest at which no larger share of the impostors is accepted. A rate
    below one comparison's share cannot be told. Intervals are percentiles of a bootstrap over people; where no error,
    or nothing else, was seen, an end is the exact one of a binomial distribution over people, since resampling cannot
    show what never happened. There are none where genuine or impostor comparisons are those of one person.

    Args:
        trials: The comparisons.
        rates: False-accept rates, more than 0 and less than 1.
        seed: Seed of the bootstrap: the same trials give the same intervals.
        resamples: How often people are resampled, 1 or more.
        points: Points of the curve, at most; 2 or more.

    Returns:
        The rates.

    Raises:
        ValueError: A rate is out of range, there are no genuine or no impostor comparisons, or a distance is NaN.
    """
    _check(trials, rates)
    count = len(trials.impostor)
    steps = np.unique(np.geomspace(1, count, points).round()) / count
    asked, ordered = np.concatenate([np.asarray(rates, np.float64), steps]), _Ordered(trials)
    people = len(np.unique(trials.genuine_people)), len(np.unique(trials.impostor_people))
    found = _Rates(ordered, np.ones(len(trials.group)))
    limits = found.limits(asked)
    draws = _draws(trials.group, seed, resamples if min(people) > 1 else 0)
    samples = [_sample(_Rates(ordered, weights), asked, limits) for weights in draws]
    true, false, equal = _sample(found, asked, limits)
    true_ends = _increasing(_intervals([each.true for each in samples], true, people[0]), asked)
    false_ends = _intervals([each.false for each in samples], false, people[1])
    equal_ends = _interval(_intervals([each.equal for each in samples], equal, min(people))[0])
    thresholds = ordered.thresholds(limits)
    chosen = []
    for i, rate in enumerate(rates):
        if rate * count < 1 - _SLACK:
            chosen.append(Point(rate, None, 0, None, None, None, None))
            continue
        shares = (float(false[i]), _interval(false_ends[i]), float(true[i]), _interval(true_ends[i]))
        chosen.append(Point(rate, float(thresholds[i]), round(false[i] * count), *shares))
    after = slice(len(rates), None)
    curve = Curve(false[after], true[after], true_ends[after, 0], true_ends[after, 1], thresholds[after])
    return ErrorRates(len(trials.genuine), count, *people, tuple(chosen), float(equal[0]), equal_ends, curve)


def share_interval(
    happened: NDArray[np.bool_], people: NDArray[np.intp], seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """Compute the interval of a share by resampling people, as `measure` does.

    Args:
        happened: Whether it happened in each trial, `[n]`.
        people: The person of each trial, int `[n]`.
        seed: Seed of the bootstrap.
        resamples: How often people are resampled, 1 or more.

    Returns:
        The interval, or None for the trials of fewer than two people.
    """
    names, numbers = np.unique(people, return_inverse=True)
    if len(names) < 2:
        return None
    hits, counts = np.bincount(numbers, happened), np.bincount(numbers)
    draws = _draws(np.zeros(len(names), np.intp), seed, resamples)
    samples = [np.array([weights @ hits / (weights @ counts)]) for weights in draws]
    return _interval(_intervals(samples, np.array([happened.mean()]), len(names))[0])


def binomial_end(people: int) -> float:
    """Compute what a rate may be that was 0 for everybody: the upper end of the exact interval of a binomial share.

    Args:
        people: How many people were tried, 1 or more.

    Returns:
        A share from 0 to 1; the lower end for a rate of 1 is 1 less this.
    """
    return float(1 - ((1 - CONFIDENCE) / 2) ** (1 / people))


def _check(trials: Trials, rates: Sequence[float]) -> None:
    for rate in rates:
        check_rate(rate)
    for name, distances in (("genuine", trials.genuine), ("impostor", trials.impostor)):
        if not len(distances):
            raise ValueError(f"expected {name} comparisons to count errors in, got none")
        if np.isnan(distances).any():
            raise ValueError(f"{name} distances must be numbers; got NaN at {int(np.isnan(distances).argmax())}")


def check_rate(rate: float) -> None:
    """Check a false-accept rate.

    Args:
        rate: The rate.

    Raises:
        ValueError: It is not more than 0 and less than 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"a false-accept rate must be more than 0 and less than 1, such as 0.01 for 1 %; got {rate:g}")


class _Ordered:
    """Trials sorted by distance, and where each distance that occurs stands among both kinds."""

    def __init__(self, trials: Trials) -> None:
        first, second = np.argsort(trials.genuine), np.argsort(trials.impostor)
        self.genuine, self.genuine_people = trials.genuine[first], trials.genuine_people[first]
        self.impostor, self.impostor_people = trials.impostor[second], trials.impostor_people[second]
        self.others = None if trials.others is None else trials.others[second]
        seen = np.unique(np.concatenate([self.genuine[np.isfinite(self.genuine)], self.impostor]))
        self.largest = seen[-1]
        self.genuine_up_to = np.searchsorted(self.genuine, seen, side="right")
        self.impostors_up_to = np.searchsorted(self.impostor, seen, side="right")

    def thresholds(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest distances below limits; where there is no limit, the largest that was seen."""
        return np.where(np.isinf(limits), self.largest, np.nextafter(limits, -np.inf))


class _Rates:
    """The rates of trials in which every person counts with a weight. Distances below a limit are accepted."""

    def __init__(self, ordered: _Ordered, weights: NDArray[np.float64]) -> None:
        self._ordered = ordered
        impostor = weights[ordered.impostor_people]
        if ordered.others is not None:
            impostor = impostor * weights[ordered.others]
        self._genuine = np.concatenate([[0.0], np.cumsum(weights[ordered.genuine_people])])
        self._impostors = np.concatenate([[0.0], np.cumsum(impostor)])

    @property
    def is_empty(self) -> bool:
        """Whether nobody who counts has genuine comparisons, or impostor comparisons."""
        return not (self._genuine[-1] and self._impostors[-1])

    def limits(self, asked: NDArray[np.float64]) -> NDArray[np.float64]:
        """The limits for false-accept rates: the distance of the first impostor who is one too many."""
        allowed = np.floor(asked * self._impostors[-1] + _SLACK)
        first = np.searchsorted(self._impostors, allowed, side="right") - 1
        limits: NDArray[np.float64] = np.append(self._ordered.impostor, np.inf)[first]
        return limits

    def true_accept(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._genuine[np.searchsorted(self._ordered.genuine, limits)] / self._genuine[-1])

    def false_accept(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._impostors[np.searchsorted(self._ordered.impostor, limits)] / self._impostors[-1])

    def equal_error_rate(self) -> float:
        """The rate on the line through the two thresholds between which both rates cross."""
        low, high = -1, len(self._ordered.genuine_up_to) - 1
        before, after = (0.0, 1.0), self._errors(high)
        while high - low > 1:
            middle = (low + high) // 2
            errors = self._errors(middle)
            if errors[0] < errors[1]:
                low, before = middle, errors
            else:
                high, after = middle, errors
        gap = before[1] - before[0]
        share = gap / (gap + after[0] - after[1])
        return before[0] + share * (after[0] - before[0])

    def _errors(self, at: int) -> tuple[float, float]:
        """Shares of false accepts and of false rejects where all up to one of the distances is accepted."""
        false = self._impostors[self._ordered.impostors_up_to[at]] / self._impostors[-1]
        return float(false), float(1 - self._genuine[self._ordered.genuine_up_to[at]] / self._genuine[-1])


class _Sample(NamedTuple):
    """True-accept rates for rates asked `[r]`, false-accept rates at given limits `[r]`, the equal error rate `[1]`."""

    true: NDArray[np.float64]
    false: NDArray[np.float64]
    equal: NDArray[np.float64]


def _sample(rates: _Rates, asked: NDArray[np.float64], limits: NDArray[np.float64]) -> _Sample:
    if rates.is_empty:
        return _Sample(np.full(len(asked), np.nan), np.full(len(asked), np.nan), np.full(1, np.nan))
    true, false = rates.true_accept(rates.limits(asked)), rates.false_accept(limits)
    return _Sample(true, false, np.array([rates.equal_error_rate()]))


def _draws(group: NDArray[np.intp], seed: int, count: int) -> Iterator[NDArray[np.float64]]:
    """How often each person is drawn, in samples with replacement of as many people from each group as it has."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(group == name) for name in np.unique(group)]
    for _ in range(count):
        weights = np.zeros(len(group))
        for people in members:
            drawn = generator.integers(len(people), size=len(people))
            weights[people] = np.bincount(drawn, minlength=len(people))
        yield weights


def _intervals(samples: Sequence[NDArray[np.float64]], found: NDArray[np.float64], people: int) -> NDArray[np.float64]:
    """The ends `[r, 2]` of the intervals of some rates; NaN without samples."""
    if not samples:
        return np.full((len(found), 2), np.nan)
    tail, end = (1 - CONFIDENCE) / 2, binomial_end(people)
    low, high = np.nanquantile(np.stack(samples), [tail, 1 - tail], axis=0)
    low = np.where(found == 1, np.minimum(low, 1 - end), low)
    return np.stack([low, np.where(found == 0, np.maximum(high, end), high)], axis=1)


def _increasing(ends: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intervals of true-accept rates that use what is known of all: they grow with the false-accept rate."""
    order = np.argsort(asked, kind="stable")
    increasing = ends.copy()
    increasing[order, 0] = np.maximum.accumulate(ends[order, 0])
    increasing[order[::-1], 1] = np.minimum.accumulate(ends[order[::-1], 1])
    return increasing


def _interval(ends: NDArray[np.float64]) -> Interval | None:
    return None if np.isnan(ends).any() else Interval(float(ends[0]), float(ends[1]))
