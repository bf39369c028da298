"""Rank-1 for each pair of a probe view and a gallery view, as CASIA-B and OUMVLP are reported."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.curves import cumulative_matches, first_positions
from hstl_fast.evaluation.protocols.outcome import Request
from hstl_fast.evaluation.protocols.samples import Samples
from hstl_fast.evaluation.search import match_positions, nearest_of_groups
from hstl_fast.progress import silent

# So many probes are copied at a time: half of OUMVLP's embeddings are 3 GB.
_PROBES_AT_ONCE = 8192


class ByView(NamedTuple):
    """Probes and a gallery, divided by their views.

    Attributes:
        views: The names of the `V` views.
        probe_views: The view of each probe, int `[n]`.
        gallery_views: The view of each gallery sequence, int `[k]`.
        has_partner: Whether the gallery of each view has the person of each probe, bool `[n, V]`.
    """

    views: list[str]
    probe_views: NDArray[np.intp]
    gallery_views: NDArray[np.intp]
    has_partner: NDArray[np.bool_]

    @property
    def without_partner(self) -> int:
        """How many probes have no gallery sequence of their person in any view but their own."""
        other = self.probe_views[:, None] != np.arange(len(self.views))
        return int((~(self.has_partner & other).any(axis=1)).sum())


def divide_by_view(samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], protocol: str) -> ByView:
    """Divide probes and gallery by their views.

    Raises:
        ValueError: There are fewer than two views, so that none is left when identical ones are excluded.
    """
    views = samples.views_of(probe, gallery)
    if len(views) < 2:
        raise ValueError(
            f"{protocol} compares sequences of different views; the data have {len(views)} view: {', '.join(views)}"
        )
    number = {view: v for v, view in enumerate(views)}
    seen, known = (np.array([number[str(view)] for view in samples.views[some]], np.intp) for some in (probe, gallery))
    people, person = np.unique(samples.labels, return_inverse=True)
    present = np.zeros((len(people), len(views)), bool)
    present[person[gallery], known] = True
    return ByView(views, seen, known, present[person[probe]])


def nearest_is_match(
    samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], division: ByView, request: Request
) -> NDArray[np.bool_]:
    """Tell for each probe and each gallery view whether the nearest sequence shows its person, bool `[n, V]`."""
    tell = request.progress or silent
    known, people = samples.vectors[gallery], samples.labels[gallery]
    hits = np.zeros(division.has_partner.shape, bool)
    for start in range(0, len(probe), _PROBES_AT_ONCE):
        some = probe[start : start + _PROBES_AT_ONCE]
        found = nearest_of_groups(
            samples.vectors[some],
            known,
            division.gallery_views,
            request.metric,
            lambda stage, done, _, start=start: tell(stage, start + done, len(probe)),  # type: ignore[misc]
        )
        of_person = people[found] == samples.labels[some][:, None]
        hits[start : start + len(some), : found.shape[1]] = of_person & (found >= 0)
    return hits


def rank_one_table(
    hits: NDArray[np.bool_], division: ByView, chosen: NDArray[np.bool_], partners_only: bool = False
) -> NDArray[np.float64]:
    """Compute rank-1 in percent by probe view and gallery view, NaN where there is no probe or no gallery.

    Args:
        hits: What `nearest_is_match` returned, `[n, V]`.
        division: The views.
        chosen: Bool `[n]`, True at the probes that count.
        partners_only: Whether to leave out, in each cell, the probes whose person its gallery does not have.

    Returns:
        Percentages `[V, V]`: a row is a probe view, a column a gallery view.
    """
    count = len(division.views)
    scored = division.has_partner if partners_only else np.isin(np.arange(count), division.gallery_views)
    total, right = np.zeros((count, count)), np.zeros((count, count))
    np.add.at(total, division.probe_views[chosen], np.broadcast_to(scored, hits.shape)[chosen])
    np.add.at(right, division.probe_views[chosen], hits[chosen])
    return _ratio(100 * right, total)


def mean_over_gallery_views(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average a table over the gallery views other than the probe view, `[V]`; cells of NaN are left out."""
    others = ~np.eye(len(table), dtype=bool) & ~np.isnan(table)
    return _ratio(np.where(others, table, 0).sum(axis=1), others.sum(axis=1))


def mean_of_views(rows: NDArray[np.float64]) -> float:
    """Average over the probe views that have a number; NaN if none has."""
    known = rows[~np.isnan(rows)]
    return float(known.mean()) if len(known) else float("nan")


def first_by_view(
    samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], division: ByView, request: Request
) -> NDArray[np.intp]:
    """Find where the first match of each probe stands in each gallery view, -1 for none, `[n, V]`."""
    first = np.full(division.has_partner.shape, -1, np.intp)
    for view in np.unique(division.gallery_views):
        some = gallery[division.gallery_views == view]
        known = samples.labels[some]
        positions = match_positions(
            samples.vectors[probe],
            samples.vectors[some],
            lambda i, known=known: known == samples.labels[probe[i]],  # type: ignore[misc]
            metric=request.metric,
            progress=request.progress,
        )
        first[:, view] = first_positions(positions)
    return first


def mean_curve(first: NDArray[np.intp], division: ByView, chosen: NDArray[np.bool_], ranks: int) -> NDArray[np.float64]:
    """Compute the CMC curve whose every rank is averaged over views as rank-1 is.

    Args:
        first: What `first_by_view` returned, `[n, V]`.
        division: The views.
        chosen: Bool `[n]`, True at the probes that count.
        ranks: The length of the curve.

    Returns:
        Percentages `[ranks]`.
    """
    count = len(division.views)
    cells = np.full((ranks, count, count), np.nan)
    for gallery_view in np.unique(division.gallery_views):
        for probe_view in range(count):
            some = chosen & (division.probe_views == probe_view)
            cells[:, probe_view, gallery_view] = cumulative_matches(first[some, gallery_view], ranks)
    return np.array([mean_of_views(mean_over_gallery_views(table)) for table in cells])


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ratio of two arrays, NaN where the second is 0."""
    result = np.full(above.shape, np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result
