"""CASIA-B: rank-1 by probe view and gallery view under three conditions, and the cross-view form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.curves import average_precision, cumulative_matches, first_positions
from hstl_fast.evaluation.protocols import by_view
from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection, counted, number, numbers
from hstl_fast.evaluation.protocols.rankings import CURVE_RANKS
from hstl_fast.evaluation.protocols.samples import Samples, no_such_types
from hstl_fast.evaluation.search import match_positions

NAME = "casia-b"
GALLERY = ("nm-01", "nm-02", "nm-03", "nm-04")
# Normal walking, with a bag, in a coat.
PROBES: dict[str, tuple[str, ...]] = {"NM": ("nm-05", "nm-06"), "BG": ("bg-01", "bg-02"), "CL": ("cl-01", "cl-02")}
CROSS_VIEW_GALLERY = ("nm-02", "bg-02", "cl-02")
CROSS_VIEW_PROBES: dict[str, tuple[str, ...]] = {"NM": ("nm-01",), "BG": ("bg-01",), "CL": ("cl-01",)}


def select_casia_b(samples: Samples, request: Request) -> Selection:
    """Select probes and gallery of `casia-b`; `evaluate` describes them.

    Raises:
        ValueError: The data lack the types or views of the protocol.
    """
    known = CROSS_VIEW_GALLERY if request.cross_view else GALLERY
    every_type = [each for types in _probe_types(request).values() for each in types]
    probe, gallery = samples.of_types(every_type), samples.of_types(known)
    if not len(gallery):
        raise no_such_types(NAME, "a gallery", known, samples)
    if not len(probe):
        raise no_such_types(NAME, "probes", every_type, samples)
    division = by_view.divide_by_view(samples, probe, gallery, NAME)
    counts = counted(samples, probe, gallery, division.without_partner)
    return Selection(probe, gallery, counts, _missing(samples, [*known, *every_type]))


def evaluate_casia_b(samples: Samples, selection: Selection, request: Request) -> Outcome:
    """Evaluate by the protocol `casia-b`; `evaluate` describes it."""
    types = samples.types[selection.probe]
    condition = {name: np.isin(types, wanted) for name, wanted in _probe_types(request).items()}
    compute = _cross_view if request.cross_view else _view_by_view
    return compute(samples, selection, request, condition)


def _probe_types(request: Request) -> dict[str, tuple[str, ...]]:
    return CROSS_VIEW_PROBES if request.cross_view else PROBES


def _view_by_view(
    samples: Samples, selection: Selection, request: Request, condition: dict[str, NDArray[np.bool_]]
) -> Outcome:
    probe, gallery = selection.probe, selection.gallery
    division = by_view.divide_by_view(samples, probe, gallery, NAME)
    hits = by_view.nearest_is_match(samples, probe, gallery, division, request)
    tables = {name: by_view.rank_one_table(hits, division, chosen) for name, chosen in condition.items()}
    rates = {name: by_view.mean_of_views(by_view.mean_over_gallery_views(table)) for name, table in tables.items()}
    rates["mean"] = float(np.mean(list(rates.values())))
    curves = {}
    if request.curves:
        first = by_view.first_by_view(samples, probe, gallery, division, request)
        for name, chosen in condition.items():
            if chosen.any():
                curves[name] = by_view.mean_curve(first, division, chosen, CURVE_RANKS).tolist()
    return Outcome(
        NAME,
        request.metric,
        selection.counts,
        {name: {"rank1": number(rate)} for name, rate in rates.items()},
        {name: numbers(table) for name, table in tables.items()},
        division.views,
        curves,
        selection.remarks,
    )


def _cross_view(
    samples: Samples, selection: Selection, request: Request, condition: dict[str, NDArray[np.bool_]]
) -> Outcome:
    probe, gallery = selection.probe, selection.gallery
    division = by_view.divide_by_view(samples, probe, gallery, NAME)
    labels, views = samples.labels, samples.views
    known, seen = labels[gallery], views[gallery]
    positions = match_positions(
        samples.vectors[probe],
        samples.vectors[gallery],
        lambda i: known == labels[probe[i]],
        lambda i: (known == labels[probe[i]]) & (seen == views[probe[i]]),
        request.metric,
        request.progress,
    )
    first = first_positions(positions)
    precision = 100 * np.array([average_precision(each) for each in positions])
    results, tables, curves = {}, {}, {}
    for name, chosen in condition.items():
        of_view = [chosen & (division.probe_views == v) for v in range(len(division.views))]
        cmc = np.array([cumulative_matches(first[some], CURVE_RANKS) for some in of_view])
        mean_precision = np.array([precision[some].mean() if some.any() else np.nan for some in of_view])
        tables[name] = {"rank1": numbers(cmc[:, 0]), "mAP": numbers(mean_precision)}
        results[name] = {"rank1": by_view.mean_of_views(cmc[:, 0]), "mAP": by_view.mean_of_views(mean_precision)}
        if request.curves and chosen.any():
            curves[name] = [by_view.mean_of_views(rank) for rank in cmc.T]
    measures = ("rank1", "mAP")
    results["mean"] = {each: float(np.mean([row[each] for row in results.values()])) for each in measures}
    stated = {name: {each: number(value) for each, value in row.items()} for name, row in results.items()}
    return Outcome(NAME, request.metric, selection.counts, stated, tables, division.views, curves, selection.remarks)


def _missing(samples: Samples, wanted: list[str]) -> tuple[str, ...]:
    """A remark on types that no sequence has."""
    absent = sorted(set(wanted) - set(samples.types.tolist()))
    return (f"No sequence has the type {' or '.join(absent)}, which {NAME} uses.",) if absent else ()
