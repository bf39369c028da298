"""Thresholds chosen from a gallery itself: which distance keeps strangers out, and how many of the enrolled it lets in.

Each recording is a probe once. Compared with all other recordings, it shows how an enrolled person is recognised;
compared with those of all other people, as if its own person had never been enrolled, how a stranger would fare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hstl_fast.evaluation.comparison import Comparison
from hstl_fast.evaluation.error_rates import FEW_PEOPLE, Interval, check_rate, share_interval
from hstl_fast.progress import Progress, silent

# So many recordings of a larger gallery are probes.
PROBES = 2000
# Distances that are looked at together.
_DISTANCES_AT_ONCE = 1 << 22
_TRACK = re.compile(r"[-/]track\d+\b.*$")


@dataclass(frozen=True)
class Threshold:
    """The greatest distance at which a name is given, and what is known of the errors that it makes.

    The rates are estimates from the gallery: they hold for people, cameras and clothes like those enrolled.

    Attributes:
        distance: The greatest distance at which a name is given.
        asked: The false-accept rate that was asked for.
        false_accept_rate: The share of recordings of strangers that get a name, as it is to be expected for the next
            one: one more than what was accepted, of one more than what was tried. At most what was asked.
        false_accept_interval: The interval of 95 % of that share, which resamples people; None where all are of one.
        true_accept_rate: The share of recordings of enrolled people that get the right name; None where no person has
            two recordings to compare.
        true_accept_interval: Its interval, or None.
        people: The people in the gallery.
        recordings: The recordings in the gallery.
        strangers: How many recordings were probes of strangers.
        genuine: How many recordings were probes of enrolled people.
        remarks: Sentences that a reader of the numbers has to know.
    """

    distance: float
    asked: float
    false_accept_rate: float
    false_accept_interval: Interval | None
    true_accept_rate: float | None
    true_accept_interval: Interval | None
    people: int
    recordings: int
    strangers: int
    genuine: int
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the threshold as JSON holds it; rates are shares from 0 to 1."""
        return {**vars(self), "remarks": list(self.remarks)}


def from_gallery(
    vectors: NDArray[np.float32],
    people: Sequence[int] | NDArray[np.int64],
    false_accept_rate: float,
    *,
    sources: Sequence[Hashable] | None = None,
    metric: str = "euclidean",
    seed: int = 0,
    progress: Progress = silent,
) -> Threshold:
    """Choose the threshold for a false-accept rate by leaving out recordings of the gallery.

    A recording is compared with all others; a stranger is simulated by leaving out all recordings of the probe's
    person. Of more than `PROBES` recordings so many are probes, drawn by the seed, each compared with the whole
    gallery, so that time and memory stay bounded.

    Recordings that are cut from one video of one walk are near-copies of each other. A probe whose near-copy stays in
    the gallery is recognised too easily: the true-accept rate is too high for people who come back another day, in
    other clothes. With `sources`, all recordings of the probe's person from its video are left out, too, and people
    with one video only say nothing about true accepts. A stranger has no near-copy, so the distance is the same; but
    near-copies among the probes tell hardly more than one of them, which is why intervals resample people.

    Args:
        vectors: The embeddings of the gallery `[k, P, C]`, in memory or a memory map.
        people: The number of the person of each recording, `[k]`.
        false_accept_rate: The share of strangers who may get a name, more than 0 and less than 1.
        sources: The video of each recording, `[k]`, such as `videos_of` finds it; None takes every recording for a walk
            of its own.
        metric: `euclidean` or `cosine`, as in `part_distances`.
        seed: Seed of the sample and of the intervals.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The threshold.

    Raises:
        ValueError: The gallery is too small to tell the rate, which the message says with the smallest that it can
            tell; it has fewer than two people, the arguments do not fit together, or an embedding has NaN in it.
    """
    check_rate(false_accept_rate)
    owners = _numbers("people", people, len(vectors))
    videos = np.arange(len(vectors)) if sources is None else _videos(sources, len(vectors))
    if len(np.unique(owners)) < 2:
        found = "is empty" if not len(owners) else "holds 1 person"
        raise ValueError(f"a threshold needs a gallery of 2 people or more, to compare them; this one {found}")
    generator = np.random.default_rng(seed)
    chosen = np.arange(len(vectors))
    if len(chosen) > PROBES:
        chosen = np.sort(generator.choice(len(chosen), PROBES, replace=False))
    _check_enough(false_accept_rate, len(chosen), len(np.unique(owners[chosen])))
    own, other = _nearest(vectors, chosen, owners, videos, metric, progress)
    allowed = min(math.floor(false_accept_rate * (len(other) + 1) + 1e-9), len(other)) - 1
    limit = float(np.sort(other)[allowed])
    judged = _judged(false_accept_rate, limit, own, other, owners[chosen], owners, seed)
    walks = len(set(zip(owners.tolist(), videos.tolist())))
    if walks == len(videos):
        return judged
    one = f"The {len(videos):,} recordings count as {walks:,} walks: those cut from a video of one name are one."
    return replace(judged, remarks=(*judged.remarks, one))


def smallest_rate(strangers: int) -> float:
    """Compute the smallest false-accept rate that can be told.

    A threshold that keeps out all of n strangers lets in the next one with a probability of up to 1 / (n + 1).

    Args:
        strangers: How many recordings of strangers were tried.

    Returns:
        The rate.
    """
    return 1 / (strangers + 1)


def videos_of(sources: Sequence[str]) -> list[Hashable]:
    """Tell which clips are cut from one video, by the names that this package gives to tracks.

    Args:
        sources: Where clips come from, such as `door.mp4-track01`.

    Returns:
        For each clip the part before the track, `door.mp4`; or the clip's place where it is no track: then it is a walk
        of its own, also beside others of that name, such as `w.npz` of several folders.
    """
    return [_TRACK.sub("", source) or source if _TRACK.search(source) else i for i, source in enumerate(sources)]


def _numbers(name: str, values: Any, count: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} must be integers [{count}], one for each recording; got {array.dtype} {list(array.shape)}"
        )
    return array.astype(np.int64)


def _videos(sources: Sequence[Hashable], count: int) -> NDArray[np.intp]:
    if len(sources) != count:
        raise ValueError(f"sources must be [{count}], one for each recording; got {len(sources)}")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(source, len(numbers)) for source in sources], np.intp)


def _check_enough(rate: float, strangers: int, people: int) -> None:
    least = smallest_rate(strangers)
    if rate < least * (1 - 1e-9):
        raise ValueError(
            f"a false-accept rate of {100 * rate:g} % cannot be told from {strangers} recordings of {people} people: "
            f"the smallest is {_rounded_up(100 * least)} %; enrol more people, or ask for a rate of that or more"
        )


def _rounded_up(percent: float) -> str:
    scale = 10.0 ** (1 - math.floor(math.log10(percent)))
    return f"{math.ceil(percent * scale - 1e-9) / scale:g}"


def _nearest(
    vectors: NDArray[np.float32],
    chosen: NDArray[np.intp],
    owners: NDArray[np.int64],
    videos: NDArray[np.intp],
    metric: str,
    progress: Progress,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distances of probes to the nearest recording of their own person from another video, and of anybody else.

    Infinite where there is no such recording.
    """
    own, other = np.full(len(chosen), np.inf), np.full(len(chosen), np.inf)
    comparison = Comparison(vectors[chosen], vectors, metric)
    for start, block in comparison.blocks(progress):
        for first, distances in _pieces(start, block):
            rows = slice(first, first + len(distances))
            elsewhere = videos[chosen[rows], None] != videos
            elsewhere[np.arange(len(distances)), chosen[rows]] = False
            same = owners[chosen[rows], None] == owners
            own[rows] = _least(comparison, first, distances, elsewhere & same)
            other[rows] = _least(comparison, first, distances, ~same)
    return own, other


def _pieces(start: int, block: Tensor) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Some rows of a block at a time, with the number of the first probe."""
    size = max(1, _DISTANCES_AT_ONCE // block.shape[1])
    for row in range(0, len(block), size):
        yield start + row, block[row : row + size].numpy()


def _least(
    comparison: Comparison, first: int, distances: NDArray[np.float32], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The least distance of each row among the columns allowed, in float64; infinite without any."""
    least = np.where(allowed, distances, np.inf).min(axis=1, initial=np.inf).astype(np.float64)
    bounds = comparison.bounds[first : first + len(distances)]
    rows, columns = np.nonzero(allowed & (distances <= (least + 2 * bounds)[:, None]))
    found = np.full(len(distances), np.inf)
    np.minimum.at(found, rows, comparison.exact(rows + first, columns))
    return found


def _judged(
    rate: float,
    limit: float,
    own: NDArray[np.float64],
    other: NDArray[np.float64],
    probes: NDArray[np.int64],
    owners: NDArray[np.int64],
    seed: int,
) -> Threshold:
    """Count what happens where distances below a limit get a name; `probes` are the people of the probes."""
    genuine = np.isfinite(own)
    named = other < limit
    right = (own < other)[genuine] & (own < limit)[genuine]
    people = len(np.unique(owners))
    return Threshold(
        distance=float(np.nextafter(limit, -np.inf)),
        asked=rate,
        false_accept_rate=float((named.sum() + 1) / (len(named) + 1)),
        false_accept_interval=share_interval(named, probes, seed),
        true_accept_rate=float(right.mean()) if len(right) else None,
        true_accept_interval=share_interval(right, probes[genuine], seed),
        people=people,
        recordings=len(owners),
        strangers=len(named),
        genuine=len(right),
        remarks=_remarks(rate, people, len(probes), len(owners), len(right)),
    )


def _remarks(rate: float, people: int, probes: int, recordings: int, genuine: int) -> tuple[str, ...]:
    found = []
    if probes < recordings:
        found.append(f"Of {recordings:,} recordings a random sample of {probes:,} was tried.")
    if people * rate < 1:
        found.append(
            f"{100 * rate:g} % of strangers is less than one of the {people} people of the gallery: the interval says "
            "what is known."
        )
    if people < FEW_PEOPLE:
        found.append(f"Intervals from fewer than {FEW_PEOPLE} people are too narrow: these are from {people}.")
    if not genuine:
        found.append("Nobody has recordings of two walks, so how often enrolled people are recognised is not known.")
    return tuple(found)
