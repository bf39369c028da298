"""Evaluation of the test people during a training, by a published protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

import hstl_fast
from hstl_fast.data.errors import DataError
from hstl_fast.embedding import embed_all
from hstl_fast.evaluation.division import PROTOCOL_OF, HeldOut, held_out
from hstl_fast.evaluation.protocols import Request, run_protocol
from hstl_fast.evaluation.published import flat
from hstl_fast.models import HSTL
from hstl_fast.progress import Progress, silent
from hstl_fast.training.config import TrainingConfig
from hstl_fast.training.people import open_divided

# The number that stands for an evaluation, as `flat` names it.
_SCORES = {"casia-b": ("mean", "rank1"), "oumvlp": ("all_probes", "rank1")}
_RANK_ONE = ("", "rank1")
_LISTED = 3


def check_evaluation(config: TrainingConfig) -> tuple[str, ...]:
    """Check, before anything is trained, that the data have what the evaluation needs.

    Args:
        config: The configuration; one without evaluation is fine.

    Returns:
        Sentences about what is left out or absent.

    Raises:
        DataError: There is no data set, or no division of it.
        ValueError: The data lack the recordings, views or probes of the protocol, or people of the test set.
    """
    return _held_out(config).notes if config.evaluation.every else ()


def evaluate_model(model: HSTL, config: TrainingConfig, step: int, progress: Progress = silent) -> dict[str, Any]:
    """Evaluate a network on the test people of the data, as `hstl-fast evaluate` does with its checkpoint.

    The embeddings are computed in evaluation mode without autocast, by one process; the model stays as it is, and no
    generator of random numbers moves.

    Args:
        model: The network, in any mode.
        config: The configuration, which names data, protocol, metric, longest sequence and backend.
        step: Number of steps that were made.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        A dict that JSON can hold: `step`, `protocol`, `metric`, `results` in percent and `counts` as
        `hstl_fast.evaluation.evaluate` gives them; `score`, the one of the results that stands for all (rank-1, for
        casia-b its mean), None where there is none to state; `remarks`, sentences that a reader of the numbers has to
        know; and `seconds`.

    Raises:
        DataError: There is no data set, or no division of it.
        ValueError: The data lack what the protocol needs, or no sequence can be embedded.
    """
    began = time.perf_counter()
    protocol, chosen = _protocol(config), _held_out(config)
    device = model.norm.weight.device.type
    with hstl_fast.use_backend(config.machine.backend), torch.autocast(device, enabled=False):
        chunks, vectors = embed_all(model, chosen.sequences, config.evaluation.max_frames, progress)
    failures = [failure for chunk in chunks for failure in chunk.failures]
    if not len(vectors):
        raise ValueError(f"none of the {len(failures)} test sequences can be embedded: {_some(failures)}")
    items = [chosen.sequences.items[row] for chunk in chunks for row in chunk.rows]
    names = ([item.label for item in items], [item.type for item in items], [item.view for item in items])
    outcome = run_protocol(protocol, vectors, *names, replace(chosen.request, progress=progress))
    remarks = [*chosen.notes, *outcome.remarks]
    if failures:
        remarks.append(f"{len(failures)} test sequences cannot be embedded: {_some(failures)}")
    return {
        "step": step,
        "protocol": protocol,
        "metric": outcome.metric,
        "score": flat(outcome.results).get(_SCORES.get(protocol, _RANK_ONE)),
        "results": outcome.results,
        "counts": outcome.counts,
        "remarks": remarks,
        "seconds": round(time.perf_counter() - began, 3),
    }


def describe_evaluation(evaluation: Mapping[str, Any]) -> str:
    """Say in one line what an evaluation found.

    Args:
        evaluation: What `evaluate_model` returned.

    Returns:
        Step, protocol, percentages and counts.
    """
    measures = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10"}
    parts = []
    for (group, measure), value in flat(evaluation["results"]).items():
        name = " ".join(part for part in (group.replace("_", " "), measures.get(measure, measure)) if part)
        parts.append(f"{name} {'none' if value is None else f'{value:.2f} %'}")
    counts = evaluation["counts"]
    people = f"{counts['people']} people, {counts['probes']} probes, {counts['gallery']} gallery sequences"
    return f"Step {evaluation['step']}, {evaluation['protocol']}: {', '.join(parts)} ({people})"


def _protocol(config: TrainingConfig) -> str:
    return config.evaluation.protocol or PROTOCOL_OF[config.network.preset]


def _held_out(config: TrainingConfig) -> HeldOut:
    sequences = open_divided(config.data)
    if sequences.partition is None:
        raise DataError(
            f"{config.data.path}: expected a partition (data.partition) with TEST_SET to evaluate, got none"
        )
    return held_out(sequences, _protocol(config), Request(config.evaluation.metric))


def _some(failures: list[str]) -> str:
    more = len(failures) - _LISTED
    return "; ".join(failures[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
