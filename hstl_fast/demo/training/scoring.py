"""Rank-1 rates of the trained walkers' network: by the protocol of CASIA-B, of single parts, and of simpler answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data import Sequences
from hstl_fast.evaluation import evaluate
from hstl_fast.evaluation.protocols.casia_b import GALLERY, PROBES
from hstl_fast.models import HSTL, HSTLConfig
from hstl_fast.models.levels import levels, part_spans
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.energy import gait_energy_image

PROTOCOL = "casia-b"
CONDITIONS = tuple(PROBES)
_AT_ONCE = 64


@dataclass(frozen=True)
class Scores:
    """Rank-1 rates in percent, identical views excluded.

    Attributes:
        rates: The mean over views, by condition (`NM`, `BG`, `CL`) and as `mean`.
        tables: By condition, a table by probe view (rows) and gallery view (columns); None where there is nothing.
        views: The names of rows and columns.
        counts: The numbers of `people`, `probes` and `gallery` sequences.
    """

    rates: dict[str, float]
    tables: dict[str, list[list[float | None]]]
    views: list[str]
    counts: dict[str, Any]


class Region(NamedTuple):
    """A region of the finest level, and what it contributes.

    Attributes:
        top: Where it begins, as a share of the height.
        bottom: Where it ends.
        parts: Numbers of the parts that lie within it.
        alone: The NM rate of these parts alone, in percent.
        without: The NM rate of all other parts, in percent.
    """

    top: float
    bottom: float
    parts: list[int]
    alone: float
    without: float


class Vectors(NamedTuple):
    """The vectors that the test sequences are compared by.

    Attributes:
        embeddings: `[N, P, C]` of the network.
        energy: Gait-energy images as vectors, `[N, 1, 64 * 44]`.
    """

    embeddings: NDArray[np.float32]
    energy: NDArray[np.float32]


def vectors_of(model: HSTL, sequences: Sequences, progress: Progress = silent) -> Vectors:
    """Embed a data set, and compute the gait-energy image of each sequence: the mean of its silhouettes.

    Args:
        model: The network.
        sequences: The data set.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        Both for every sequence.
    """
    embeddings, energy = [], []
    for start in range(0, len(sequences), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(sequences))
        clips = [sequences.read(i) for i in range(start, stop)]
        embeddings.append(model.embed(clips).float().numpy())
        energy += [gait_energy_image(clip) for clip in clips]
        progress("embedding", stop, len(sequences))
    return Vectors(np.concatenate(embeddings), np.stack(energy))


def score(vectors: NDArray[np.float32], sequences: Sequences) -> Scores:
    """Evaluate by the protocol of CASIA-B, Euclidean distance.

    Args:
        vectors: `[N, P, C]`.
        sequences: The data set that they belong to.

    Returns:
        The rates.

    Raises:
        ValueError: The data set lacks what the protocol needs.
    """
    found = evaluate(PROTOCOL, vectors, sequences.labels, sequences.types, sequences.views)
    rates = {name: each["rank1"] for name, each in found["results"].items()}
    return Scores(rates, found["tables"], found["views"], found["counts"])


def chance(sequences: Sequences) -> float:
    """Compute the rate of guessing, in percent: each probe meets one view's gallery, where all people are alike."""
    return 100 / len(set(sequences.labels))


def scores_of_parts(vectors: NDArray[np.float32], sequences: Sequences) -> list[float]:
    """Compute the NM rate of each part by itself.

    Args:
        vectors: `[N, P, C]`.
        sequences: The data set that they belong to.

    Returns:
        Percentages of the `P` parts.
    """
    normal, chosen = _normal(vectors, sequences)
    return [_rate(normal[:, [part]], chosen) for part in range(vectors.shape[1])]


def scores_of_regions(vectors: NDArray[np.float32], sequences: Sequences, config: HSTLConfig) -> list[Region]:
    """Compute what each region of the finest level contributes.

    Args:
        vectors: `[N, P, C]`.
        sequences: The data set that they belong to.
        config: The network.

    Returns:
        The regions from head to feet.
    """
    normal, chosen = _normal(vectors, sequences)
    spans = part_spans(config)
    found = []
    for top, bottom in levels(config)[-2].spans:  # the last are the strips
        within = [part for part, (first, last) in enumerate(spans) if top <= first and last <= bottom]
        others = [part for part in range(len(spans)) if part not in within]
        found.append(Region(top, bottom, within, _rate(normal[:, within], chosen), _rate(normal[:, others], chosen)))
    return found


def _normal(vectors: NDArray[np.float32], sequences: Sequences) -> tuple[NDArray[np.float32], Sequences]:
    """The sequences of normal walking: the gallery and the probes NM."""
    rows = [i for i, kind in enumerate(sequences.types) if kind in (*GALLERY, *PROBES["NM"])]
    return vectors[rows], sequences.subset(rows)


def _rate(vectors: NDArray[np.float32], sequences: Sequences) -> float:
    found = evaluate(PROTOCOL, vectors, sequences.labels, sequences.types, sequences.views)
    rate: float = found["results"]["NM"]["rank1"]
    return rate
