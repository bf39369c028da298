"""The protocols once more, in loops that spell them out, and random embeddings to try them on."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Names = list[str]


class Case(NamedTuple):
    """Arguments of `evaluate`."""

    vectors: np.ndarray
    labels: Names
    types: Names
    views: Names


def random_case(seed: int, types: list[str], views: list[str], people: int = 4, missing: float = 0.2) -> Case:
    """Embeddings of small whole numbers, so that many distances are equal, with recordings missing."""
    rng = np.random.default_rng(seed)
    names = [(f"{p:03}", t, v) for p in range(1, people + 1) for t in types for v in views if rng.random() > missing]
    rng.shuffle(names)
    build = rng.integers(-2, 3, (people + 1, 2, 2))
    vectors = np.array([build[int(name[0])] for name in names]) + rng.integers(-1, 2, (len(names), 2, 2))
    return Case(vectors.astype(np.float32), *([str(name[i]) for name in names] for i in range(3)))


def distance(case: Case, i: int, j: int, metric: str) -> float:
    parts = []
    for a, b in zip(case.vectors[i].tolist(), case.vectors[j].tolist(), strict=True):
        if metric == "euclidean":
            parts.append(math.dist(a, b))
        else:
            norms = math.hypot(*a) * math.hypot(*b)
            parts.append(1 - (sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0))
    return round(sum(parts) / len(parts), 9)  # equal distances may be added in another order


def ranking(case: Case, probe: int, gallery: list[int], metric: str) -> list[bool]:
    """Whether each sequence of the gallery shows the probe's person, the nearest first."""
    order = sorted(gallery, key=lambda j: distance(case, probe, j, metric))  # a stable sort
    return [case.labels[j] == case.labels[probe] for j in order]


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def known(values: Iterator[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def indices(case: Case, condition: Callable[[str, str, str], bool]) -> list[int]:
    return [i for i, name in enumerate(zip(*case[1:], strict=True)) if condition(*name)]


def table(
    case: Case, probe_types: Names, gallery_types: Names, views: Names, metric: str, partners_only: bool, rank: int = 1
) -> list[list[float | None]]:
    """Rank-k by probe view and gallery view."""
    rows = []
    for probe_view in views:
        rows.append([])
        for gallery_view in views:
            gallery = indices(case, lambda _, t, v, view=gallery_view: t in gallery_types and v == view)
            hits = []
            for i in indices(case, lambda _, t, v, view=probe_view: t in probe_types and v == view):
                if gallery and (not partners_only or case.labels[i] in [case.labels[j] for j in gallery]):
                    hits.append(100.0 * any(ranking(case, i, gallery, metric)[:rank]))
            rows[-1].append(mean(hits))
    return rows


def mean_of(rows: list[list[float | None]]) -> float | None:
    """The mean over the gallery views other than the probe view, then over probe views."""
    means = [
        mean(known(value for j, value in enumerate(row) if j != i and value is not None)) for i, row in enumerate(rows)
    ]
    return mean(known(iter(means)))


def average_precision(ranked: list[bool]) -> float:
    found, precisions = 0, []
    for place, match in enumerate(ranked, 1):
        if match:
            found += 1
            precisions.append(found / place)
    return mean(precisions) or 0.0


def inverse_negative_penalty(ranked: list[bool]) -> float:
    last = max(place for place, match in enumerate(ranked, 1) if match)
    return sum(ranked) / last
