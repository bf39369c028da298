"""How stable the cuts of a hierarchy are under resampling of the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hstl_fast.hierarchy.feature_sets import Floats
from hstl_fast.hierarchy.measuring import StripFeatures
from hstl_fast.hierarchy.tree import Bootstrap, Hierarchy, cluster
from hstl_fast.names import one_of

UNITS = ("sequences", "people")


def bootstrap(
    hierarchy: Hierarchy,
    features: StripFeatures,
    resamples: int = 100,
    *,
    unit: str = "sequences",
    seed: int = 2023,
) -> Bootstrap:
    """Draw the data again, with replacement, and count how often the chosen cuts come out the same.

    Args:
        hierarchy: The hierarchy found from `features`, with its cuts chosen.
        features: The features by sequence.
        resamples: Number of samples, each as large as the data.
        unit: What is drawn: "sequences", or "people" with all their sequences. Sequences of one person resemble each
            other, so that their shares are too high where few people have many sequences.
        seed: Of the draws.

    Returns:
        The shares, one for each cut.

    Raises:
        ValueError: The number of samples is not positive, the unit is unknown, or the hierarchy has no cuts.
    """
    one_of(unit, UNITS, "unit")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not hierarchy.clusters:
        raise ValueError("hierarchy must have cuts to draw samples for; choose them by with_clusters")
    wanted = hierarchy.splits()
    same = np.zeros(len(wanted), int)
    for mean in _resampled_means(features, resamples, unit, seed):
        splits = cluster(mean, hierarchy.linkage, hierarchy.metric).splits(hierarchy.clusters)
        same += [split == other for split, other in zip(splits, wanted, strict=True)]
    return Bootstrap(resamples, unit, tuple((same / resamples).tolist()))


def _resampled_means(features: StripFeatures, resamples: int, unit: str, seed: int) -> Iterator[Floats]:
    groups = list(range(features.sequences)) if unit == "sequences" else features.labels
    _, group = np.unique(np.array(groups), return_inverse=True)
    count = int(group.max()) + 1
    flat = features.values.reshape(features.sequences, -1)
    draw = np.random.default_rng(seed)
    for _ in range(resamples):
        weights = draw.multinomial(count, np.full(count, 1 / count))[group].astype(np.float64)
        yield (weights @ flat / weights.sum()).reshape(features.values.shape[1:])
