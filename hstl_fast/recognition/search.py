"""The nearest people of a gallery of any size, for every probe, in the order of float64.

Distances are computed in the type of the embeddings, the gallery a piece at a time. Every distance that may decide who
is found, as far as the bounds of `hstl_fast.evaluation.comparison` tell, is computed again in float64. The gallery is
never copied: beside it, its people and the result about 600 MiB are used at most, and of a memory map no more than that
is resident at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hstl_fast.backends.cpu import distances as native
from hstl_fast.evaluation.comparison import block_size, difference_bound, product_bound
from hstl_fast.evaluation.distances import centre_of, implementation, norms
from hstl_fast.progress import Progress, silent
from hstl_fast.recognition.mapped import MappedRows

# Up to so many probes are compared by differences, which only reads the gallery; the product form is faster for more.
FEW_PROBES = 16
# Bytes of the gallery that are compared, or gathered, at a time.
_GALLERY_BYTES = 64 << 20
_GATHERED_BYTES = 64 << 20
# Rows of the gallery whose mean is the centre of the product form.
_SAMPLE = 64


class Nearest(NamedTuple):
    """The nearest people of every probe, nearest first.

    Attributes:
        people: Numbers of people int64 `[n, count]`; -1 where there are fewer.
        rows: The nearest recording of each, a row of the gallery, int64 `[n, count]`; -1 where there are fewer.
        distances: The distances of these recordings, computed in float64, float64 `[n, count]`; infinite where there
            are fewer.
    """

    people: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def nearest_people(
    probe: NDArray[np.float32],
    vectors: NDArray[np.float32],
    people: NDArray[np.int64],
    count: int,
    progress: Progress = silent,
) -> Nearest:
    """Find the people whose nearest recordings are the nearest to every probe.

    The distance is the mean over the parts of the Euclidean distance, as `hstl_fast.evaluation.part_distances`
    computes it, and the order that of float64. Of equal distances the one of the lower row comes first.

    Args:
        probe: Embeddings `[n, P, C]`.
        vectors: The gallery's embeddings `[k, P, C]`, which may be a read-only memory map.
        people: The person of each row, int `[k]`, 0 or more; a row of -1 is never found.
        count: How many people to find, 1 or more.
        progress: Called as `progress(stage, done, total)` with rows of the gallery.

    Returns:
        The people, their nearest recordings and their distances.

    Raises:
        ValueError: `count` is below 1, the shapes or types do not fit together, or an embedding has NaN or infinity in
            it.
    """
    probe, people = np.asarray(probe), np.asarray(people)
    _check(probe, vectors, people, count)
    found = Nearest(
        np.full((len(probe), count), -1, np.int64),
        np.full((len(probe), count), -1, np.int64),
        np.full((len(probe), count), np.inf),
    )
    groups = _Groups.of(people)
    if not len(groups.people):
        return found
    parts, channels = vectors.shape[1:]
    at_once = block_size(len(vectors), parts, channels, itemsize=4)
    total = -(-len(probe) // at_once) * len(vectors)
    for number, start in enumerate(range(0, len(probe), at_once)):

        def tell(done: int, before: int = number * len(vectors)) -> None:
            progress("searching", before + done, total)

        block = probe[start : start + at_once]
        distances = _distances(block, vectors, tell)
        for i, row in enumerate(distances.values.numpy(), start):
            candidates = groups.candidates(row, distances.share, float(distances.least[i - start]), count)
            exact = _exact(probe[i], vectors, groups.order[candidates], distances.values.dtype)
            _write(found, i, groups, candidates, exact)
    return found


def best(found: Nearest, count: int) -> Nearest:
    """Choose the nearest people among several findings for one and the same person or for different ones.

    Args:
        found: For every probe any number of people in any order, `[n, any]`, who may occur several times.
        count: How many people to keep.

    Returns:
        The nearest people, each once, `[n, count]`, in the order of `nearest_people`.
    """
    chosen = Nearest(
        np.full((len(found.people), count), -1, np.int64),
        np.full((len(found.people), count), -1, np.int64),
        np.full((len(found.people), count), np.inf),
    )
    for i, (people, rows, distances) in enumerate(zip(*found, strict=True)):
        there = np.flatnonzero(people >= 0)
        first = there[_first_of_each(people[there], rows[there], distances[there])][:count]
        for into, values in zip(chosen, (people, rows, distances), strict=True):
            into[i, : len(first)] = values[first]
    return chosen


def _check(probe: NDArray[Any], vectors: NDArray[Any], people: NDArray[Any], count: int) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if probe.ndim != 3 or vectors.ndim != 3 or probe.shape[1:] != vectors.shape[1:] or 0 in probe.shape[1:]:
        raise ValueError(
            "probe and vectors must be [n, P, C] and [k, P, C] with the same parts and channels; "
            f"got {list(probe.shape)} and {list(vectors.shape)}"
        )
    if people.shape != (len(vectors),) or (len(people) and people.dtype.kind not in "iu"):
        raise ValueError(
            f"people must be int [{len(vectors)}], one for each row of vectors; got {people.dtype} {list(people.shape)}"
        )
    for row in np.flatnonzero(~np.isfinite(probe).all((1, 2))):
        raise ValueError(f"probe must be finite; got NaN or infinity in probe[{row}]")


@dataclass(frozen=True)
class _Groups:
    """The rows of every person beside one another.

    Attributes:
        people: The numbers of the people who have rows, increasing, `[G]`.
        order: The rows of the gallery in the order of their people, then of their numbers.
        begins: Where the rows of each person begin in `order`, `[G]`.
        is_sorted: Whether `order` is that of the gallery.
    """

    people: NDArray[np.int64]
    order: NDArray[np.intp]
    begins: NDArray[np.intp]
    is_sorted: bool

    @classmethod
    def of(cls, people: NDArray[np.int64]) -> _Groups:
        is_sorted = not len(people) or bool((people[0] >= 0) and (people[1:] >= people[:-1]).all())
        order = np.arange(len(people)) if is_sorted else np.argsort(people, kind="stable")
        order = order[np.searchsorted(people[order], 0) :]
        numbers, begins = np.unique(people[order], return_index=True)
        return cls(numbers.astype(np.int64), order, begins, is_sorted)

    def candidates(self, distances: NDArray[Any], share: float, least: float, count: int) -> NDArray[np.intp]:
        """Places in `order` of all recordings that may be among the nearest `count` people's nearest ones.

        Args:
            distances: Distances to all rows of the gallery, `[k]`, each of which may be off by `share` times itself
                and by `least`.
            share: See there.
            least: See there.
            count: How many people are to be found.
        """

        def reach(some: NDArray[Any]) -> NDArray[np.float64]:
            # Two exact distances may be in the other order if the computed one is not above this.
            return some.astype(np.float64) * (1 + 2.5 * share) + 3 * least

        ordered = distances if self.is_sorted else distances[self.order]
        nearest = np.minimum.reduceat(ordered, self.begins)
        last = np.partition(nearest, count - 1)[count - 1] if count < len(nearest) else nearest.max()
        near = np.flatnonzero(nearest <= reach(last))
        lengths = np.diff(np.append(self.begins, len(ordered)))[near]
        shifts = self.begins[near] - (np.cumsum(lengths) - lengths)
        places: NDArray[np.intp] = np.arange(lengths.sum()) + np.repeat(shifts, lengths)
        possible: NDArray[np.bool_] = ordered[places] <= np.repeat(reach(nearest[near]), lengths)
        return places[possible]

    def of_places(self, places: NDArray[np.intp]) -> NDArray[np.int64]:
        """The people whose rows are at these places in `order`."""
        people: NDArray[np.int64] = self.people[np.searchsorted(self.begins, places, side="right") - 1]
        return people


class _Distances(NamedTuple):
    """Distances `[b, k]`, each off by at most `share` times itself and `least` `[b]`."""

    values: Tensor
    share: float
    least: NDArray[np.float64]


def _distances(probe: NDArray[Any], vectors: NDArray[Any], tell: Callable[[int], None]) -> _Distances:
    """The distances of some probes to the whole gallery, in float64 where squares of float32 overflow."""
    is_double = np.result_type(probe, vectors, np.float32) == np.float64
    for kind in (torch.float64,) if is_double else (torch.float32, torch.float64):
        found = _distances_in(kind, probe, vectors, tell)
        suspects = found.values.isfinite().logical_not_().any(0).nonzero()[:, 0].tolist()
        for row in suspects:
            if not np.isfinite(vectors[row]).all():
                raise ValueError(f"vectors must be finite; got NaN or infinity in vectors[{row}]")
        if not suspects:
            return found
    raise ValueError(f"vectors must not be so large that distances overflow; got such in vectors[{suspects[0]}]")


def _distances_in(
    kind: torch.dtype, probe: NDArray[Any], vectors: NDArray[Any], tell: Callable[[int], None]
) -> _Distances:
    some = _tensor(probe, kind)
    parts, channels = some.shape[1:]
    compute = implementation(some)
    values = torch.empty(len(some), len(vectors), dtype=kind)
    if len(some) <= FEW_PROBES:
        share, least = difference_bound(parts, channels, kind)
        for first, piece in _pieces(vectors, kind, tell):
            columns = torch.empty(len(some), len(piece), dtype=kind)
            compute.difference_distances(some, piece, columns)
            values[:, first : first + len(piece)] = columns
        return _Distances(values, share, np.full(len(some), least))
    share, least = product_bound(parts, channels, kind, compute is native)
    centre = centre_of(_tensor(vectors[:: max(1, len(vectors) // _SAMPLE)], kind))
    # The bound is a share of A + B, and B, of the gallery's row, is at most A and the distance itself.
    within = 2 * share * norms("probe", some, centre, compute).numpy() + least
    for first, piece in _pieces(vectors, kind, tell):
        columns = torch.empty(len(some), len(piece), dtype=kind)
        compute.part_distances(some, piece, torch.arange(len(piece)), centre, False, columns)
        values[:, first : first + len(piece)] = columns
    return _Distances(values, share, within)


def _pieces(vectors: NDArray[Any], kind: torch.dtype, tell: Callable[[int], None]) -> Iterator[tuple[int, Tensor]]:
    """Some rows of the gallery at a time, with the number of the first; their pages are given back afterwards."""
    rows = MappedRows(vectors)
    at_once = max(1, _GALLERY_BYTES // (vectors[:1].size * kind.itemsize))
    tell(0)
    for first in range(0, len(vectors), at_once):
        end = min(first + at_once, len(vectors))
        rows.will_need(end, min(end + at_once, len(vectors)))
        yield first, _tensor(vectors[first:end], kind)
        rows.release(first, end)
        tell(end)


def _exact(
    probe: NDArray[Any], vectors: NDArray[Any], rows: NDArray[np.intp], kind: torch.dtype
) -> NDArray[np.float64]:
    """The distances of one probe to some rows of the gallery, computed in float64."""
    one, found = _tensor(probe[None], kind), np.empty(len(rows))
    compute = implementation(one)
    at_once = max(1, _GATHERED_BYTES // (one.numel() * kind.itemsize))
    for first in range(0, len(rows), at_once):
        some = _tensor(vectors[rows[first : first + at_once]], kind)
        numbers = torch.arange(len(some))
        found[first : first + at_once] = compute.pair_distances(one, some, torch.zeros_like(numbers), numbers, False)
    return found


def _write(found: Nearest, i: int, groups: _Groups, candidates: NDArray[np.intp], exact: NDArray[np.float64]) -> None:
    """Write the nearest people of probe `i`, chosen among candidates by their exact distances."""
    people, rows = groups.of_places(candidates), groups.order[candidates]
    first = _first_of_each(people, rows, exact)[: found.people.shape[1]]
    for into, values in zip(found, (people, rows, exact), strict=True):
        into[i, : len(first)] = values[first]


def _first_of_each(
    people: NDArray[np.int64], rows: NDArray[np.intp], distances: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Places of the nearest of each person, nearest first, equal distances in the order of rows."""
    ranked: NDArray[np.intp] = np.lexsort((rows, distances))
    return ranked[np.sort(np.unique(people[ranked], return_index=True)[1])]


def _tensor(array: NDArray[Any], kind: torch.dtype) -> Tensor:
    """An array as a tensor of this type, without a copy where possible."""
    wanted = np.float64 if kind == torch.float64 else np.float32
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing is written
        return torch.from_numpy(np.ascontiguousarray(array, dtype=wanted))
