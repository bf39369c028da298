"""GREW's validation set: the second sequence of each person against the first ones."""

from __future__ import annotations

import numpy as np

from hstl_fast.evaluation.curves import cumulative_matches, first_positions
from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection, counted
from hstl_fast.evaluation.protocols.rankings import CURVE_RANKS, positions_of_matches, rank_rates, small_gallery
from hstl_fast.evaluation.protocols.samples import Samples, no_such_types

NAME = "grew-validation"
GALLERY, PROBES = ("01",), ("02",)
RANKS = (1, 5, 10, 20)


def select_grew_validation(samples: Samples, request: Request) -> Selection:
    """Select probes and gallery of `grew-validation`; `evaluate` describes them.

    Raises:
        ValueError: The data lack the types of the protocol.
    """
    probe, gallery = samples.of_types(PROBES), samples.of_types(GALLERY)
    if not len(gallery):
        raise no_such_types(NAME, "a gallery", GALLERY, samples)
    if not len(probe):
        raise no_such_types(NAME, "probes", PROBES, samples)
    alone = ~np.isin(samples.labels[probe], samples.labels[gallery])
    counts = counted(samples, probe, gallery, int(alone.sum()))
    return Selection(probe, gallery, counts, small_gallery(gallery, RANKS))


def evaluate_grew_validation(samples: Samples, selection: Selection, request: Request) -> Outcome:
    """Evaluate by the protocol `grew-validation`; `evaluate` describes it."""
    first = first_positions(positions_of_matches(samples, selection.probe, selection.gallery, request))
    curves = {NAME: cumulative_matches(first, CURVE_RANKS).tolist()} if request.curves else {}
    rates = rank_rates(first, RANKS)
    return Outcome(NAME, request.metric, selection.counts, rates, {}, [], curves, selection.remarks)
