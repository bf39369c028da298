"""Features of strips in which a tree is planted: strips of one region are alike, the more so the finer the level."""

from itertools import pairwise

import numpy as np

from hstl_fast.hierarchy.feature_sets import Floats

# Ward's distance of two clusters of 8 strips is up to twice that of their means: each level stands out by more.
_FACTOR = 4.0


def planted(splits: list[list[int]], noise: float = 0.0, seed: int = 0, extra: int = 3) -> Floats:
    """Features `[strips, d]` with a one-hot code of the region at each level, scaled by level, and noise."""
    strips = sum(splits[0])
    codes = []
    for level, split in enumerate(reversed(splits)):
        region = np.repeat(np.arange(len(split)), split)
        codes.append(_FACTOR**level * np.eye(len(split))[region])
    codes.append(np.zeros((strips, extra)))
    features = np.concatenate(codes, axis=1)
    return features + noise * np.random.default_rng(seed).standard_normal(features.shape)


def boundaries(split: list[int]) -> set[int]:
    return set(np.cumsum(split)[:-1].tolist())


def refines(splits: list[list[int]]) -> bool:
    return all(boundaries(coarse) <= boundaries(fine) for coarse, fine in pairwise(splits))
