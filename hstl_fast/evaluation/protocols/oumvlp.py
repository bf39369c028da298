"""OUMVLP: rank-1 by probe view and gallery view, over all probes and over those that have a partner."""

from __future__ import annotations

import numpy as np

from hstl_fast.evaluation.protocols import by_view
from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection, counted, number, numbers
from hstl_fast.evaluation.protocols.samples import Samples, no_such_types

NAME = "oumvlp"
GALLERY, PROBES = ("01",), ("00",)


def select_oumvlp(samples: Samples, request: Request) -> Selection:
    """Select probes and gallery of `oumvlp`; `evaluate` describes them.

    Raises:
        ValueError: The data lack the types or views of the protocol.
    """
    probe, gallery = samples.of_types(PROBES), samples.of_types(GALLERY)
    if not len(gallery):
        raise no_such_types(NAME, "a gallery", GALLERY, samples)
    if not len(probe):
        raise no_such_types(NAME, "probes", PROBES, samples)
    division = by_view.divide_by_view(samples, probe, gallery, NAME)
    counts = counted(samples, probe, gallery, division.without_partner)
    return Selection(probe, gallery, counts, _without(division))


def evaluate_oumvlp(samples: Samples, selection: Selection, request: Request) -> Outcome:
    """Evaluate by the protocol `oumvlp`; `evaluate` describes it."""
    probe, gallery = selection.probe, selection.gallery
    division = by_view.divide_by_view(samples, probe, gallery, NAME)
    hits = by_view.nearest_is_match(samples, probe, gallery, division, request)
    everyone = np.ones(len(probe), bool)
    tables = {
        "all_probes": by_view.rank_one_table(hits, division, everyone),
        "with_partner": by_view.rank_one_table(hits, division, everyone, partners_only=True),
    }
    results = {
        name: {"rank1": number(by_view.mean_of_views(by_view.mean_over_gallery_views(table)))}
        for name, table in tables.items()
    }
    lists = {name: numbers(table) for name, table in tables.items()}
    return Outcome(NAME, request.metric, selection.counts, results, lists, division.views, remarks=selection.remarks)


def _without(division: by_view.ByView) -> tuple[str, ...]:
    """A remark on the comparisons by which the two results differ."""
    known = np.isin(np.arange(len(division.views)), division.gallery_views)
    compared = known & (division.probe_views[:, None] != np.arange(len(division.views)))
    alone = int((compared & ~division.has_partner).sum())
    if not alone:
        return ()
    return (
        f"In {alone} of {int(compared.sum())} comparisons of a probe with the gallery of another view, that view does "
        "not have the probe's person: they are wrong among all probes and left out of those with a partner.",
    )
