"""Open-set evaluation: probes whose people may not be in the gallery, by the measures of ISO/IEC 19795-1.

*Identification* (1:N): the answer to a probe is the nearest person of the gallery if he is within a threshold, else
nobody. The false-positive identification rate is the share of the probes of unknown people who get a name; the
true-positive identification rate is the share of the probes of known people who get the right one, and one less it is
the false-negative identification rate.

*Verification* (1:1): a probe is compared with one person of the gallery, by the distance to the nearest of his
sequences. The false match rate is the share of the comparisons with anybody else that are accepted; the true match rate
is that of the comparisons with the right person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.comparison import Comparison
from hstl_fast.evaluation.division import listed
from hstl_fast.evaluation.error_rates import FEW_PEOPLE, RATES, RESAMPLES, ErrorRates, Interval, Point, Trials, measure
from hstl_fast.evaluation.search import nearest_of_groups, top
from hstl_fast.progress import Progress

# Comparisons of two people that are kept, of more than that a sample: so many numbers are sorted and resampled.
IMPOSTORS = 1 << 19
# A rate that rests on fewer errors than that is off by more than 30 % of itself in one case of ten (the rule of 30).
_FEW_ERRORS = 30
# Nearest sequences, of one probe and one person each, that are found at a time.
_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True, eq=False)
class OpenSet:
    """The result of an open-set evaluation.

    Attributes:
        metric: The distance.
        counts: `known_people` and `unknown_people` among the probes, `gallery_people`, `gallery` sequences,
            `known_probes`, `unknown_probes`, `impostor_comparisons` of the verification, and how many of them are
            `impostor_comparisons_used`.
        rank1: The share of the probes of known people whose nearest person is the right one, at any distance.
        identification: The rates of identification: impostors are the probes of unknown people.
        verification: The rates of verification.
        remarks: Sentences that a reader of the numbers has to know.
    """

    metric: str
    counts: dict[str, int]
    rank1: float
    identification: ErrorRates
    verification: ErrorRates
    remarks: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the result as JSON holds it: rates in percent, None where nothing can be told."""
        parts = {"identification": self.identification, "verification": self.verification}
        shown = {name: _document(rates) for name, rates in parts.items()}
        head = {"metric": self.metric, "counts": self.counts, "rank1": 100 * self.rank1}
        return {**head, **shown, "remarks": list(self.remarks)}


def open_set(
    probe: NDArray[np.float32],
    gallery: NDArray[np.float32],
    probe_people: Sequence[str] | NDArray[Any],
    gallery_people: Sequence[str] | NDArray[Any],
    metric: str = "euclidean",
    rates: Sequence[float] = RATES,
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> OpenSet:
    """Evaluate identification and verification where some people are not in the gallery.

    Intervals resample people, known and unknown ones apart (`error_rates`); the gallery of the identification stays as
    it is, so they hold for this gallery. Distances are those of float64, and memory is bounded as in `search`.

    Args:
        probe: Embeddings `[n, P, C]`.
        gallery: Embeddings `[k, P, C]`.
        probe_people: The person of each probe, names or integers `[n]`; who is not in the gallery is unknown.
        gallery_people: The person of each gallery sequence `[k]`.
        metric: `euclidean` or `cosine`, as in `part_distances`.
        rates: False-accept rates to choose thresholds for, more than 0 and less than 1.
        seed: Seed of the intervals, and of the sample where there are more comparisons than `IMPOSTORS`.
        resamples: How often people are resampled for the intervals, 1 or more.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        The rates.

    Raises:
        ValueError: Labels do not fit the embeddings, no probe shows a known person, none an unknown one, the metric is
            unknown, the shapes do not fit together, an embedding has NaN or infinity in it, or a rate is out of range.
    """
    for side, people, embeddings in (("probe", probe_people, probe), ("gallery", gallery_people, gallery)):
        if len(people) != len(embeddings):
            raise ValueError(
                f"{side}_people must be names or integers [{len(embeddings)}], one for each {side} sequence; "
                f"got {len(people)}"
            )
    names, probes, known = check_labels(probe_people, gallery_people)
    group = np.where(np.isin(np.arange(len(names)), known), 0, 1)
    is_known = group[probes] == 0
    nearest, distances = top(probe, gallery, 1, metric, progress)
    is_right = known[nearest[:, 0]] == probes
    reached = np.where(is_right, distances[:, 0], np.inf)
    unknown = ~is_known
    searched = Trials(
        reached[is_known], probes[is_known], distances[unknown, 0], probes[unknown], others=None, group=group
    )
    identification = measure(searched, rates, seed, resamples)
    pairs = _compared(probe, gallery, probes, known, group, metric, seed, progress)
    verification = measure(pairs, rates, seed, resamples)
    wrong = len(probes) * len(np.unique(known)) - int(is_known.sum())
    counts = {
        "known_people": len(np.unique(probes[is_known])),
        "unknown_people": len(np.unique(probes[unknown])),
        "gallery_people": len(np.unique(known)),
        "gallery": len(gallery),
        "known_probes": int(is_known.sum()),
        "unknown_probes": int(unknown.sum()),
        "impostor_comparisons": wrong,
        "impostor_comparisons_used": len(pairs.impostor),
    }
    remarks = _remarks(counts, identification, verification)
    return OpenSet(metric, counts, float(is_right[is_known].mean()), identification, verification, remarks)


def check_labels(
    probe_people: Sequence[str] | NDArray[Any], gallery_people: Sequence[str] | NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Check that there is somebody to find and somebody unknown.

    Args:
        probe_people: The person of each probe, names or integers `[n]`.
        gallery_people: The person of each gallery sequence `[k]`.

    Returns:
        All people, sorted, and the number among them of the person of each probe and of each gallery sequence.

    Raises:
        ValueError: The labels are neither names nor integers, the gallery is empty, or no probe shows a known or an
            unknown person.
    """
    sides = []
    for name, people in (("probe", probe_people), ("gallery", gallery_people)):
        labels = np.asarray(people)
        if labels.ndim != 1 or (len(labels) and labels.dtype.kind not in "iuU"):
            raise ValueError(f"{name}_people must be names or integers; got {labels.dtype} {list(labels.shape)}")
        sides.append(labels)
    if all(map(len, sides)) and (sides[0].dtype.kind == "U") != (sides[1].dtype.kind == "U"):
        raise ValueError("probe_people and gallery_people must both be names or both be integers; got one of each")
    names, numbers = np.unique(np.concatenate([side for side in sides if len(side)] or sides), return_inverse=True)
    probes, known = numbers[: len(sides[0])], numbers[len(sides[0]) :]
    is_known = np.isin(probes, known)
    count = len(np.unique(known))
    people = f"the gallery holds {count} {'person' if count == 1 else 'people'}"
    if not count:
        raise ValueError("expected a gallery to compare probes with; it is empty")
    if not is_known.any():
        found = listed(str(name) for name in names[np.unique(probes)]) or "no probes at all"
        raise ValueError(f"expected probes of people of the gallery, got none: {people}; the probes show {found}")
    if is_known.all():
        raise ValueError(
            f"expected probes of people who are not in the gallery, to count who gets a name and should not; {people}, "
            f"and all {len(probes)} probes show one of them"
        )
    return names, probes, known


def _compared(
    probe: NDArray[np.float32],
    gallery: NDArray[np.float32],
    probes: NDArray[np.intp],
    known: NDArray[np.intp],
    group: NDArray[np.intp],
    metric: str,
    seed: int,
    progress: Progress | None,
) -> Trials:
    """Every probe with every person of the gallery; of comparisons with others a sample, where they are too many."""
    people, column = np.unique(known, return_inverse=True)
    generator = np.random.default_rng(seed)
    others = len(probes) * len(people) - int(np.count_nonzero(group[probes] == 0))
    share = IMPOSTORS / max(1, others)
    kept: list[tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]] = []
    size = max(1, _PAIRS_AT_ONCE // len(people))
    for start in range(0, len(probes), size):
        some, who = probe[start : start + size], probes[start : start + size]
        found = nearest_of_groups(some, gallery, column, metric, progress)
        is_right = who[:, None] == people
        drawn = generator.random(found.shape) < share if share < 1 else np.ones(found.shape, np.bool_)
        rows, columns = np.nonzero(is_right | drawn)
        comparison = Comparison(some, gallery, metric)
        exact = comparison.exact(rows, found[rows, columns])
        kept.append((is_right[rows, columns], who[rows], people[columns], exact))
    right, first, second, distances = (np.concatenate([each[i] for each in kept]) for i in range(4))
    wrong = ~right
    return Trials(distances[right], first[right], distances[wrong], first[wrong], second[wrong], group)


def _remarks(counts: dict[str, int], identification: ErrorRates, verification: ErrorRates) -> tuple[str, ...]:
    """Sentences about what so few people and probes can tell."""
    found = []
    probes, people = counts["unknown_probes"], counts["unknown_people"]
    kinds = (
        ("false-positive identification", identification, f"{probes} probes of unknown people"),
        ("false match", verification, f"{verification.impostors:,} comparisons with other people"),
    )
    for kind, rates, trials in kinds:
        if lost := [point.asked for point in rates.points if point.threshold is None]:
            least = f"one of them is {100 / rates.impostors:.2g} %"
            found.append(f"A {kind} rate of {_percents(lost)} cannot be told from {trials}: {least}.")
    rough = [point for point in identification.points if point.threshold is not None and point.accepted < _FEW_ERRORS]
    if rough:
        found.append(
            f"The thresholds of identification for {_percents([point.asked for point in rough])} rest on fewer than "
            f"{_FEW_ERRORS} false accepts: expect other numbers from other people."
        )
    few = min(people, counts["known_people"])
    if few == 1:
        found.append("Where known or unknown probes are those of one person, there are no intervals.")
    elif few < FEW_PEOPLE:
        found.append(f"Intervals from fewer than {FEW_PEOPLE} people are too narrow: these are from {few}.")
    if counts["gallery_people"] == 1:
        found.append("The gallery holds one person, who is always the nearest: the rates are those of verification.")
    if counts["impostor_comparisons_used"] < counts["impostor_comparisons"]:
        found.append(
            f"Of {counts['impostor_comparisons']:,} comparisons with other people, a random sample of "
            f"{counts['impostor_comparisons_used']:,} is used for verification."
        )
    return tuple(found)


def _percents(shares: Sequence[float]) -> str:
    return " and ".join(f"{100 * share:g} %" for share in shares)


def _document(rates: ErrorRates) -> dict[str, Any]:
    curve = rates.curve
    arrays = {
        "false_accept": 100 * curve.false_accept,
        "true_accept": 100 * curve.true_accept,
        "low": 100 * curve.low,
        "high": 100 * curve.high,
        "threshold": curve.threshold,
    }
    return {
        "genuine": rates.genuine,
        "impostors": rates.impostors,
        "genuine_people": rates.genuine_people,
        "impostor_people": rates.impostor_people,
        "at": [_point(point) for point in rates.points],
        "equal_error_rate": 100 * rates.equal_error_rate,
        "equal_error_interval": _ends(rates.equal_error_interval),
        "curve": {name: [None if np.isnan(v) else float(v) for v in values] for name, values in arrays.items()},
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "asked": 100 * point.asked,
        "threshold": point.threshold,
        "accepted": point.accepted,
        "false_accept": None if point.false_accept is None else 100 * point.false_accept,
        "false_accept_interval": _ends(point.false_accept_interval),
        "true_accept": None if point.true_accept is None else 100 * point.true_accept,
        "true_accept_interval": _ends(point.true_accept_interval),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [100 * interval.low, 100 * interval.high]
