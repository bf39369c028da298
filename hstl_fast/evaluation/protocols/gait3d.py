"""Gait3D: a list of probes against all other sequences, by CMC, mAP and mINP."""

from __future__ import annotations

import numpy as np

from hstl_fast.evaluation.curves import (
    average_precision,
    cumulative_matches,
    first_positions,
    inverse_negative_penalty,
)
from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection, counted
from hstl_fast.evaluation.protocols.rankings import CURVE_RANKS, positions_of_matches, rank_rates, small_gallery
from hstl_fast.evaluation.protocols.samples import Samples, listed

NAME = "gait3d"
RANKS = (1, 5, 10)


def select_gait3d(samples: Samples, request: Request) -> Selection:
    """Select probes and gallery of `gait3d`; `evaluate` describes them.

    Raises:
        ValueError: No probes are named, none of them is in the data, or nothing is left for the gallery.
    """
    if not request.probes:
        raise ValueError(f"{NAME} needs the list of its probes, names such as 1001-camid0_videoid2-seq0; got none")
    parts = zip(samples.labels, samples.types, samples.views, strict=True)
    names = np.array(["-".join(each) for each in parts])
    absent = set(request.probes) - set(names.tolist())
    is_probe = np.isin(names, request.probes)
    probe, gallery = np.flatnonzero(is_probe), np.flatnonzero(~is_probe)
    if not len(probe):
        raise ValueError(
            f"none of the {len(request.probes)} probes is in the data: expected names such as {listed(absent)}; "
            f"got {listed(names)}"
        )
    if not len(gallery):
        raise ValueError(f"{NAME} needs a gallery beside the probes; all {len(probe)} sequences are probes")
    partnered = np.isin(samples.labels[probe], samples.labels[gallery])
    counts = counted(samples, probe, gallery, int((~partnered).sum()))
    remarks = small_gallery(gallery, RANKS)
    if absent:
        remarks += (f"{len(absent)} of {len(set(request.probes))} probes are not in the data: {listed(absent)}.",)
    return Selection(probe, gallery, counts, remarks)


def evaluate_gait3d(samples: Samples, selection: Selection, request: Request) -> Outcome:
    """Evaluate by the protocol `gait3d`; `evaluate` describes it."""
    # Probes without a partner are skipped only now: re-ranking looks for neighbours among all sequences.
    everyone = positions_of_matches(samples, selection.probe, selection.gallery, request)
    positions = [each for each in everyone if len(each)]
    first = first_positions(positions)
    results = {
        **rank_rates(first, RANKS),
        "mAP": 100 * float(np.mean([average_precision(each) for each in positions])),
        "mINP": 100 * float(np.mean([inverse_negative_penalty(each) for each in positions])),
    }
    curves = {NAME: cumulative_matches(first, CURVE_RANKS).tolist()} if request.curves else {}
    return Outcome(NAME, request.metric, selection.counts, results, {}, [], curves, selection.remarks)
