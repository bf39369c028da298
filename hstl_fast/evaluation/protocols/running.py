"""The published protocols by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from hstl_fast.evaluation.distances import METRICS
from hstl_fast.evaluation.protocols.casia_b import evaluate_casia_b, select_casia_b
from hstl_fast.evaluation.protocols.gait3d import evaluate_gait3d, select_gait3d
from hstl_fast.evaluation.protocols.grew import evaluate_grew, select_grew
from hstl_fast.evaluation.protocols.grew_validation import evaluate_grew_validation, select_grew_validation
from hstl_fast.evaluation.protocols.oumvlp import evaluate_oumvlp, select_oumvlp
from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection
from hstl_fast.evaluation.protocols.samples import Samples, check_names, check_samples, composed
from hstl_fast.evaluation.reranking import check_rerank_memory
from hstl_fast.names import did_you_mean
from hstl_fast.progress import Progress

_Select = Callable[[Samples, Request], Selection]
_Evaluate = Callable[[Samples, Selection, Request], Outcome]
_FUNCTIONS: dict[str, tuple[_Select, _Evaluate]] = {
    "casia-b": (select_casia_b, evaluate_casia_b),
    "oumvlp": (select_oumvlp, evaluate_oumvlp),
    "gait3d": (select_gait3d, evaluate_gait3d),
    "grew-validation": (select_grew_validation, evaluate_grew_validation),
    "grew": (select_grew, evaluate_grew),
}
# The protocols that `evaluate` knows.
PROTOCOLS = tuple(_FUNCTIONS)
# The protocols that take an option which others do not.
TAKERS = {"probes": ("gait3d",), "cross_view": ("casia-b",), "rerank": ("gait3d", "grew-validation", "grew")}
_ONE_PERSON = (
    "All probes and all of the gallery show one person{name}: any ranking is right, so no percentage is stated."
)


def evaluate(
    protocol: str,
    vectors: Any,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "euclidean",
    probes: Iterable[str] | None = None,
    cross_view: bool = False,
    rerank: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate embeddings of a test set by a published protocol.

    All sequences that are given are evaluated; the division into training and test set is the caller's. Equal distances
    are ranked in the order of the sequences.

    * `casia-b`: gallery `nm-01` to `nm-04`; probes NM `nm-05, nm-06`, BG `bg-01, bg-02`, CL `cl-01, cl-02`. Rank-1 for
      each probe view and gallery view, averaged without identical views over gallery views, then over probe views;
      probes without a partner count as wrong. With `cross_view`: gallery `nm-02, bg-02, cl-02` of all views, probes
      `nm-01`, `bg-01`, `cl-01`; sequences of the probe's person in the probe's view are excluded; rank-1 and mAP by
      probe view, averaged.
    * `oumvlp`: gallery `01`, probes `00`; averaged alike over all probes, and in each cell over the probes whose person
      the gallery of its view has.
    * `gait3d`: the probes are named, everything else is the gallery; probes whose person is not in it are skipped.
    * `grew-validation`: gallery `01`, probes `02`; probes without a partner count as wrong.
    * `grew`: gallery `01` and `02`, probes the label `probe`, whose people are not public: the competition's rows.

    Args:
        protocol: One of `PROTOCOLS`.
        vectors: Embeddings `[N, P, C]` of a floating type.
        labels: The person of each sequence.
        types: The recording of each sequence.
        views: The camera of each sequence.
        metric: `euclidean` or `cosine`, as in `part_distances`.
        probes: Names `label-type-view` of the probes of `gait3d`.
        cross_view: Whether to evaluate `casia-b` in its cross-view form.
        rerank: Whether to rank by re-ranked distances (`rerank`); not for `casia-b` and `oumvlp`.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        A dict that JSON can hold. `protocol`; `metric`; `counts` of `people`, `probes`, `gallery` sequences and
        `probes_without_partner`; `results`; `tables` by probe view (rows) and gallery view (columns), identical views
        too, or, for `grew`, `header` and `rows` of the CSV; `views`, the names of rows and columns. Percentages are not
        rounded; None stands where there is none to state: without probes, or where all sequences show one person.

    Raises:
        ValueError: An argument is unknown or does not suit the protocol, the arrays do not fit together or have NaN in
            them, the data lack what the protocol needs, or no probe has a partner.
    """
    names = None if probes is None else _names(probes)
    request = Request(metric, names, cross_view, rerank, progress=progress)
    return run_protocol(protocol, vectors, labels, types, views, request).document()


def run_protocol(
    protocol: str, vectors: Any, labels: Sequence[str], types: Sequence[str], views: Sequence[str], request: Request
) -> Outcome:
    """Evaluate as `evaluate` does.

    Args:
        protocol: One of `PROTOCOLS`.
        vectors: Embeddings `[N, P, C]`.
        labels: The person of each sequence.
        types: The recording of each sequence.
        views: The camera of each sequence.
        request: The options.

    Returns:
        What `evaluate` returns, with curves and remarks.

    Raises:
        ValueError: As `evaluate`.
    """
    _check_request(protocol, request)
    select, compute = _FUNCTIONS[protocol]
    samples = check_samples(vectors, labels, types, views)
    selection = select(samples, request)
    _check_memory(selection, request)
    outcome = compute(samples, selection, request)
    outcome = replace(outcome, form=("cross-view",) * request.cross_view + ("re-ranked",) * request.rerank)
    if outcome.counts["people"] == 1 and outcome.results:
        everybody = set(labels)
        return outcome.withheld(_ONE_PERSON.format(name=f", {labels[0]}" if len(everybody) == 1 else ""))
    return outcome


def select_sequences(
    protocol: str, labels: Sequence[str], types: Sequence[str], views: Sequence[str], request: Request
) -> Selection:
    """Select the sequences that `evaluate` compares by their names, before they are embedded.

    Args:
        protocol: One of `PROTOCOLS`.
        labels: The person of each sequence.
        types: The recording of each sequence.
        views: The camera of each sequence.
        request: The options.

    Returns:
        Probes and gallery.

    Raises:
        ValueError: As `evaluate`.
    """
    _check_request(protocol, request)
    selection = _FUNCTIONS[protocol][0](check_names(len(labels), labels, types, views), request)
    _check_memory(selection, request)
    return selection


def _check_memory(selection: Selection, request: Request) -> None:
    if request.rerank:
        check_rerank_memory(len(selection.probe) + len(selection.gallery))


def _check_request(protocol: str, request: Request) -> None:
    if protocol not in _FUNCTIONS:
        raise ValueError(
            f"protocol must be one of {', '.join(PROTOCOLS)}; got {protocol!r}{did_you_mean(protocol, PROTOCOLS)}"
        )
    if request.metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}; got {request.metric!r}")
    given = {"probes": request.probes is not None, "cross_view": request.cross_view, "rerank": request.rerank}
    for option, takers in TAKERS.items():
        if given[option] and protocol not in takers:
            raise ValueError(f"{option} is for {', '.join(takers)}; got the protocol {protocol}")


def _names(probes: Iterable[str]) -> tuple[str, ...]:
    if isinstance(probes, str):
        raise ValueError(f"probes must be a list of names such as 1001-camid0_videoid2-seq0; got {probes!r}")
    return tuple(composed(str(name)) for name in probes)
