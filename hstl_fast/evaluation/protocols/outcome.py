"""The options of an evaluation and its result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.protocols.samples import Samples
from hstl_fast.progress import Progress


@dataclass(frozen=True)
class Request:
    """Options of an evaluation.

    Attributes:
        metric: `euclidean` or `cosine`.
        probes: Names `label-type-view` of the probes, where the protocol takes a list.
        cross_view: Rank one gallery of all views, where the protocol knows that form.
        rerank: Rank by k-reciprocal re-ranked distances.
        curves: Compute CMC curves, too.
        progress: Called as `progress(stage, done, total)`, or None.
    """

    metric: str = "euclidean"
    probes: tuple[str, ...] | None = None
    cross_view: bool = False
    rerank: bool = False
    curves: bool = False
    progress: Progress | None = None


@dataclass(frozen=True)
class Selection:
    """The sequences that a protocol compares, known before they are embedded.

    Attributes:
        probe: The numbers of the probes.
        gallery: The numbers of the gallery's sequences.
        counts: `people`, `probes`, `gallery` and `probes_without_partner`; None where it cannot be known.
        remarks: Sentences that a reader of the numbers has to know.
    """

    probe: NDArray[np.intp]
    gallery: NDArray[np.intp]
    counts: dict[str, int | None]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The result of an evaluation.

    Attributes:
        protocol: The protocol.
        metric: The distance.
        counts: `people`, `probes`, `gallery` and `probes_without_partner`; None where it cannot be known.
        results: Percentages by their names, unrounded; None where there is nothing to state.
        tables: Percentages by probe view, or the rows of a submission.
        views: The views that rows and columns of the tables stand for.
        curves: CMC curves in percent, from rank 1 on, by their names; empty where none were asked for.
        remarks: Sentences that a reader of the numbers has to know.
        form: How it differs from the protocol's usual form: `cross-view`, `re-ranked`.
    """

    protocol: str
    metric: str
    counts: dict[str, int | None]
    results: dict[str, Any]
    tables: dict[str, Any] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    form: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return what `evaluate` returns and the JSON holds."""
        names = ("protocol", "metric", "counts", "results", "tables", "views")
        return {name: getattr(self, name) for name in names}

    @property
    def title(self) -> str:
        """The protocol, the distance and the form in words."""
        return ", ".join([self.protocol, f"{self.metric} distance", *self.form])

    def withheld(self, reason: str) -> Outcome:
        """Return the same with every percentage replaced by None, and the reason among the remarks."""
        return replace(
            self, results=_none(self.results), tables=_none(self.tables), curves={}, remarks=(*self.remarks, reason)
        )


def counted(
    samples: Samples, probe: NDArray[np.intp], gallery: NDArray[np.intp], without_partner: int
) -> dict[str, int | None]:
    """Return the counts that stand beside every percentage.

    Raises:
        ValueError: No probe has a partner: every percentage would be 0 whatever the network does.
    """
    if without_partner == len(probe):
        raise ValueError(
            f"none of the {len(probe)} probes has a sequence of its person in the gallery of {len(gallery)} sequences: "
            "there is nothing to find"
        )
    return {
        "people": samples.people_of(probe, gallery),
        "probes": len(probe),
        "gallery": len(gallery),
        "probes_without_partner": without_partner,
    }


def number(value: float) -> float | None:
    """Return a percentage, or None for NaN, which no JSON file can hold."""
    return None if np.isnan(value) else float(value)


def numbers(table: Iterable[Any] | NDArray[np.float64]) -> list[Any]:
    """Return an array as nested lists with None for NaN."""
    return [number(each) if np.ndim(each) == 0 else numbers(each) for each in table]


def _none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _none(each) for name, each in value.items()}
    return [_none(each) for each in value] if isinstance(value, list) else None
