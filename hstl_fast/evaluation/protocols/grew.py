"""GREW's test set, whose people are not public: the rows of the competition's CSV."""

from __future__ import annotations

import numpy as np

from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection
from hstl_fast.evaluation.protocols.rankings import nearest_sequences
from hstl_fast.evaluation.protocols.samples import Samples, listed, no_such_types

NAME = "grew"
GALLERY = ("01", "02")
PROBE_LABEL = "probe"
RANKS = 20


def select_grew(samples: Samples, request: Request) -> Selection:
    """Select probes and gallery of `grew`; `evaluate` describes them.

    Raises:
        ValueError: There are no probes, the data lack the types of the gallery, or its people are not numbers.
    """
    is_probe = samples.labels == PROBE_LABEL
    probe = np.flatnonzero(is_probe)
    gallery = np.flatnonzero(np.isin(samples.types, GALLERY) & ~is_probe)
    if not len(probe):
        raise ValueError(f"{NAME} needs probes with the label {PROBE_LABEL}; the data have {listed(samples.labels)}")
    if not len(gallery):
        raise no_such_types(NAME, "a gallery", GALLERY, samples)
    strangers = [str(label) for label in np.unique(samples.labels[gallery]) if not str(label).isdecimal()]
    if strangers:
        raise ValueError(f"{NAME} names people by numbers in its CSV; got the labels {listed(strangers)}")
    counts = {
        "people": samples.people_of(gallery),
        "probes": len(probe),
        "gallery": len(gallery),
        "probes_without_partner": None,
    }
    remarks: tuple[str, ...] = ()
    if len(gallery) < RANKS:
        remarks = (f"The gallery has only {len(gallery)} sequences: the CSV has no names beyond them.",)
    return Selection(probe, gallery, counts, remarks)


def evaluate_grew(samples: Samples, selection: Selection, request: Request) -> Outcome:
    """Evaluate by the protocol `grew`; `evaluate` describes it."""
    probe, gallery = selection.probe, selection.gallery
    people = np.array([str(int(label)) for label in samples.labels[gallery]])
    nearest = nearest_sequences(samples, probe, gallery, RANKS, request)
    padding = [""] * (RANKS - nearest.shape[1])
    rows = [[str(samples.views[i]), *people[row].tolist(), *padding] for i, row in zip(probe, nearest, strict=True)]
    tables = {"header": ["videoId", *(f"rank{k}" for k in range(1, RANKS + 1))], "rows": rows}
    return Outcome(NAME, request.metric, selection.counts, {}, tables, remarks=selection.remarks)
