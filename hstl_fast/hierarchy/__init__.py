"""The hierarchy of body regions, found from data by clustering strips of the body. Needs the extra `[hierarchy]`.

The paper of HSTL names a hierarchical clustering analysis and publishes neither its features nor its distance nor its
linkage. What is here is constrained agglomerative clustering of the features that docs/hierarchy.md defines; it is not
the paper's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from hstl_fast.hierarchy.clustering import LINKAGES, METRICS, Merge
from hstl_fast.hierarchy.measuring import FEATURES, StripFeatures, strip_features
from hstl_fast.hierarchy.pictures import draw_hierarchy
from hstl_fast.hierarchy.published import Comparison, compare_with_published, published_splits
from hstl_fast.hierarchy.stability import bootstrap
from hstl_fast.hierarchy.text import draw_text
from hstl_fast.hierarchy.tree import Bootstrap, Hierarchy, cluster

__all__ = [
    "FEATURES",
    "LINKAGES",
    "METRICS",
    "Bootstrap",
    "Comparison",
    "Hierarchy",
    "Merge",
    "StripFeatures",
    "body_hierarchy",
    "bootstrap",
    "compare_with_published",
    "draw_hierarchy",
    "draw_text",
    "published_splits",
    "strip_features",
]


def body_hierarchy(
    features: StripFeatures | ArrayLike,
    linkage: str = "ward",
    metric: str = "euclidean",
    clusters: Sequence[int] = (),
) -> Hierarchy:
    """Cluster strips of the body into a tree whose clusters are contiguous.

    Neighbouring clusters merge, the nearest first, until one is left; where several are equally near, those nearest to
    the head. The cuts of the tree refine each other, so that they are splits of a network.

    Args:
        features: What `strip_features` gives, or finite numbers `[strips, d]`, from head to feet, for a number of
            strips that divides the 64 rows.
        linkage: Distance of two clusters: "ward" (the growth of the squared deviations from the means of the
            clusters), "average", "complete" or "single" (the mean, largest and smallest distance of their strips).
        metric: Distance of two strips: "euclidean", or, except with "ward", "cosine" or "correlation".
        clusters: Numbers of regions of the cuts that its file will hold, increasing, such as `[2, 4]`.

    Returns:
        The hierarchy.

    Raises:
        ValueError: An argument does not fit; the message names it.
        ImportError: scikit-learn is not installed.
    """
    if not isinstance(features, StripFeatures):
        return cluster(features, linkage, metric).with_clusters(clusters)
    tree = cluster(features.mean, linkage, metric).with_clusters(clusters)
    return replace(tree, features=features.name, sequences=features.sequences, frames=features.frames)
