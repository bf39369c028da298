"""Open-set evaluation: against one comparison after another, planted populations, and bad input."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hstl_fast.evaluation import open_set as page
from hstl_fast.evaluation.error_rates import Point
from hstl_fast.evaluation.open_set import OpenSet

# Few samples suffice where intervals are not looked at.
open_set = functools.partial(page.open_set, resamples=50)


def population(
    people: int, each: int, spread: float, seed: int = 0, parts: int = 2, channels: int = 8
) -> tuple[np.ndarray, list[str]]:
    """Embeddings of people at random places, and recordings around them."""
    random = np.random.default_rng(seed)
    places = random.normal(size=(people, 1, parts, channels))
    vectors = places + spread * random.normal(size=(people, each, parts, channels))
    names = [f"p{person:03d}" for person in range(people) for _ in range(each)]
    return vectors.reshape(-1, parts, channels).astype(np.float32), names


def divided(people: int, known: int, each: int = 4, spread: float = 0.5, seed: int = 0) -> tuple[Any, ...]:
    """Probe and gallery of a population: half of the recordings of the first `known` people are enrolled."""
    vectors, names = population(people, each, spread, seed)
    rows = np.arange(len(names))
    enrolled = (rows // each < known) & (rows % each < each // 2)
    labels = np.array(names)
    return vectors[~enrolled], vectors[enrolled], labels[~enrolled], labels[enrolled]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1).mean())


def below(point: Point) -> float:
    """A distance that only what the point accepts is within, whoever's rounding computes it."""
    assert point.threshold is not None
    return point.threshold * (1 - 1e-12)


def one_by_one(probe: Any, gallery: Any, mine: Any, theirs: Any) -> Iterator[tuple[str, dict[str, float]]]:
    """The person of each probe, and the distance to every person of the gallery."""
    for vector, person in zip(probe, mine, strict=True):
        found: dict[str, float] = {}
        for other, name in zip(gallery, theirs, strict=True):
            found[name] = min(found.get(name, np.inf), distance(vector, other))
        yield person, found


def test_points_are_those_of_comparing_one_by_one() -> None:
    probe, gallery, mine, theirs = divided(12, 6, spread=1.2)
    found = open_set(probe, gallery, mine, theirs, rates=(0.1, 0.25))
    answers = list(one_by_one(probe, gallery, mine, theirs))
    known = [(person, each) for person, each in answers if person in theirs]
    unknown = [each for person, each in answers if person not in theirs]
    assert found.counts["known_probes"] == len(known)
    assert found.counts["unknown_probes"] == len(unknown)
    right = sum(min(each, key=each.__getitem__) == person for person, each in known)
    assert found.rank1 == right / len(known) < 1
    for point in found.identification.points:
        named = sum(min(each.values()) <= below(point) for each in unknown)
        assert named == point.accepted == int(point.asked * len(unknown))
        correct = sum(
            min(each, key=each.__getitem__) == person and each[person] <= below(point) for person, each in known
        )
        assert point.true_accept == correct / len(known)
    wrong = [d for person, each in answers for name, d in each.items() if name != person]
    for point in found.verification.points:
        assert sum(d <= below(point) for d in wrong) == point.accepted == int(point.asked * len(wrong))
        assert point.true_accept == np.mean([each[person] <= below(point) for person, each in known])
    assert found.verification.impostors == len(wrong) == found.counts["impostor_comparisons"]


def test_farther_recordings_are_recognised_less() -> None:
    rates = [open_set(*divided(40, 20, spread=spread)) for spread in (0.2, 0.8, 1.6)]
    for kind in ("identification", "verification"):
        errors = [getattr(each, kind).equal_error_rate for each in rates]
        assert errors == sorted(errors)
        assert errors[0] == 0
        assert errors[2] > 0.1


def test_a_larger_gallery_lets_more_strangers_in() -> None:
    # The nearest of more people is nearer, so identification errs more often than verification at the same threshold.
    found = open_set(*divided(60, 30, spread=0.8))
    for identified, verified in zip(found.identification.points[1:], found.verification.points[1:], strict=True):
        assert identified.threshold < verified.threshold


def test_metric_and_integers_as_people() -> None:
    probe, gallery, mine, theirs = divided(8, 4)
    numbers = [np.array([int(name[1:]) for name in side]) for side in (mine, theirs)]
    named, numbered = (open_set(probe, gallery, *people, metric="cosine") for people in ((mine, theirs), numbers))
    assert named.document() == numbered.document()
    assert named.metric == "cosine"
    assert named.identification.points != open_set(probe, gallery, mine, theirs).identification.points


def test_too_many_comparisons_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    data = divided(30, 15, spread=1.0)
    whole = open_set(*data)
    monkeypatch.setattr(page, "IMPOSTORS", 500)
    monkeypatch.setattr(page, "_PAIRS_AT_ONCE", 100)
    some = open_set(*data)
    assert some.identification.points == whole.identification.points
    assert some.verification.genuine == whole.verification.genuine
    total = whole.verification.impostors
    # A binomial number with this mean is off by more than six of its deviations with a probability below 1e-8.
    assert abs(some.verification.impostors - 500) < 6 * np.sqrt(500)
    assert some.counts["impostor_comparisons"] == total > 1000
    assert f"Of {total:,} comparisons with other people, a random sample of" in some.remarks[-1]
    # Shares below a threshold of a sample of q differ by at most sqrt(log(2 / alpha) / 2 q) (Hoeffding).
    bound = np.sqrt(np.log(2e9) / (2 * some.verification.impostors))
    assert abs(some.verification.equal_error_rate - whole.verification.equal_error_rate) < bound


def test_what_so_few_cannot_tell_is_said() -> None:
    found = open_set(*divided(12, 6))
    texts = " ".join(found.remarks)
    assert "A false-positive identification rate of 0.1 % and 1 % cannot be told from 24 probes" in texts
    assert "one of them is 4.2 %" in texts
    assert "A false match rate of 0.1 % cannot be told from 204 comparisons with other people" in texts
    assert "for 10 % rest on fewer than 30 false accepts" in texts
    assert "Intervals from fewer than 20 people are too narrow: these are from 6." in texts
    assert [point.threshold is None for point in found.identification.points] == [True, True, False]
    document = found.document()
    assert document["identification"]["at"][0]["true_accept"] is None
    assert document["identification"]["at"][2]["true_accept"] == 100 * found.identification.points[2].true_accept


def test_one_person_in_the_gallery_or_unknown() -> None:
    one = open_set(*divided(12, 1))
    assert one.identification.points[2].threshold == one.verification.points[2].threshold
    assert "The gallery holds one person" in " ".join(one.remarks)
    stranger = open_set(*divided(5, 4), rates=(0.25,))
    assert stranger.identification.points[0].true_accept_interval is None
    assert "there are no intervals" in " ".join(stranger.remarks)


def test_bad_input() -> None:
    probe, gallery, mine, theirs = divided(6, 3)
    known = np.isin(mine, theirs)
    with pytest.raises(ValueError, match=r"not in the gallery, .*holds 3 people, and all 6 probes show one of them"):
        open_set(probe[known], gallery, mine[known], theirs)
    with pytest.raises(ValueError, match=r"got none: the gallery holds 3 people; the probes show p003, p004, p005"):
        open_set(probe[~known], gallery, mine[~known], theirs)
    with pytest.raises(ValueError, match="the gallery holds 1 person, and all 18 probes show one of them"):
        open_set(probe, gallery, ["ann"] * len(probe), ["ann"] * len(gallery))
    with pytest.raises(ValueError, match="expected a gallery to compare probes with; it is empty"):
        open_set(probe, gallery[:0], mine, theirs[:0])
    with pytest.raises(ValueError, match="got none: the gallery holds 3 people; the probes show no probes at all"):
        open_set(probe[:0], gallery, mine[:0], theirs)
    with pytest.raises(ValueError, match=r"probe_people must be names or integers \[18\], .*; got 17"):
        open_set(probe, gallery, mine[1:], theirs)
    with pytest.raises(ValueError, match=r"gallery_people must be names or integers; got float64 \[6\]"):
        open_set(probe, gallery, mine, np.full(6, np.nan))
    with pytest.raises(ValueError, match="must both be names or both be integers"):
        open_set(probe, gallery, mine, np.arange(6))
    broken = probe.copy()
    broken[2, 1, 3] = np.nan
    with pytest.raises(ValueError, match=r"probe must be finite; got NaN or infinity in probe\[2\]"):
        open_set(broken, gallery, mine, theirs)
    with pytest.raises(ValueError, match="must be more than 0 and less than 1"):
        open_set(probe, gallery, mine, theirs, rates=(1.5,))


@pytest.mark.slow
def test_intervals_cover_another_sample_of_the_same_population() -> None:
    # The rate of 30 known and 30 unknown people is compared with that of 400 others, which is off by much less.
    truth = open_set(*divided(400, 30, spread=0.9, seed=99), rates=(0.1,)).identification
    hits = 0
    for seed in range(40):
        found: OpenSet = open_set(*divided(60, 30, spread=0.9, seed=seed), rates=(0.1,))
        low, high = found.identification.points[0].true_accept_interval
        hits += low <= truth.points[0].true_accept <= high
    assert hits >= 34
