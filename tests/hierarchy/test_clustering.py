"""Clustering of strips: planted trees are found, clusters are contiguous, distances are those of the linkages."""

from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra.numpy import arrays

from hstl_fast.hierarchy import LINKAGES, METRICS, body_hierarchy, compare_with_published, published_splits
from hstl_fast.hierarchy.clustering import scikit_learn
from hstl_fast.hierarchy.feature_sets import Floats
from tests.hierarchy.planted import planted, refines

pytest.importorskip("sklearn", reason="needs the extra [hierarchy]")

PUBLISHED = ("casia-b", "oumvlp", "gait3d")
each_linkage = pytest.mark.parametrize("linkage", LINKAGES)
any_input = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


@each_linkage
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_hierarchies_are_found_where_they_are_planted(preset: str, noise: float, linkage: str) -> None:
    splits = published_splits(preset)
    counts = [len(split) for split in splits]
    for seed in range(5):
        tree = body_hierarchy(planted(splits, noise, seed), linkage, clusters=counts)
        assert tree.splits() == splits
        (own,) = (found for found in compare_with_published(tree) if found.preset == preset)
        assert all(own.equal)
        assert own.found == splits
        assert own.shared == [count - 1 for count in counts]


@pytest.mark.parametrize(("linkage", "metric"), [("average", "cosine"), ("complete", "correlation")])
def test_a_planted_tree_is_found_by_other_metrics(linkage: str, metric: str) -> None:
    splits = published_splits("casia-b")
    assert body_hierarchy(planted(splits, 0.05), linkage, metric, [2, 4]).splits() == splits


@st.composite
def trees(draw: st.DrawFn) -> list[list[int]]:
    """Cuts of a random tree over 8 or 16 strips, each with more regions than the one before."""
    strips = draw(st.sampled_from([8, 16]))
    order = draw(st.permutations(range(1, strips)))
    counts = sorted(draw(st.sets(st.integers(1, strips - 2), min_size=1, max_size=3)))
    cuts = [[0, *sorted(order[:count]), strips] for count in counts]
    return [[below - above for above, below in pairwise(cut)] for cut in cuts]


@any_input
@hypothesis.given(trees(), st.sampled_from(LINKAGES), st.integers(0, 100))
def test_any_planted_tree_is_found(splits: list[list[int]], linkage: str, seed: int) -> None:
    # Larger clusters make Ward's distances larger, up to 8 times for 16 strips.
    scaled = planted(splits, seed=seed) if linkage != "ward" else planted_for_ward(splits)
    noisy = scaled + 0.02 * np.random.default_rng(seed).standard_normal(scaled.shape)
    assert body_hierarchy(noisy, linkage).splits([len(split) for split in splits]) == splits


def planted_for_ward(splits: list[list[int]]) -> Floats:
    """A tree whose levels are far enough apart for Ward's linkage with clusters of any size."""
    codes = [np.repeat(np.arange(len(split)), split) for split in reversed(splits)]
    return np.concatenate([16.0**i * np.eye(code.max() + 1)[code] for i, code in enumerate(codes)], axis=1)


features_of_strips = arrays(np.float64, (8, 3), elements=st.floats(-100, 100, width=32))


@any_input
@hypothesis.given(features_of_strips, st.sampled_from(LINKAGES), st.sampled_from(METRICS))
def test_clusters_are_contiguous_and_cuts_refine(features: Floats, linkage: str, metric: str) -> None:
    hypothesis.assume(linkage != "ward" or metric == "euclidean")
    tree = body_hierarchy(features, linkage, metric)
    splits = tree.splits(range(1, 9))
    assert [len(split) for split in splits] == list(range(1, 9))
    assert all(sum(split) == 8 for split in splits)
    assert refines(splits)
    heights = [merge.height for merge in tree.merges]
    assert heights == sorted(heights)
    assert heights == np.maximum.accumulate([merge.distance for merge in tree.merges]).tolist()
    assert tree == body_hierarchy(features, linkage, metric)


def spread(rows: Floats) -> float:
    return float(((rows - rows.mean(axis=0)) ** 2).sum())


def defined_distance(linkage: str, upper: Floats, lower: Floats) -> float:
    if linkage == "ward":
        return (2 * (spread(np.concatenate([upper, lower])) - spread(upper) - spread(lower))) ** 0.5
    pairs = [float(np.linalg.norm(a - b)) for a in upper for b in lower]
    return {"average": sum(pairs) / len(pairs), "complete": max(pairs), "single": min(pairs)}[linkage]


@each_linkage
@pytest.mark.parametrize("strips", [2, 4, 8, 16])
def test_merges_are_those_of_the_definition(strips: int, linkage: str) -> None:
    features = np.random.default_rng(strips).normal(size=(strips, 5))
    borders = list(range(strips + 1))
    for merge in body_hierarchy(features, linkage).merges:
        triples = list(zip(borders, borders[1:], borders[2:]))
        distances = [defined_distance(linkage, features[a:b], features[b:c]) for a, b, c in triples]
        nearest = int(np.argmin(distances))
        assert tuple(merge[:3]) == triples[nearest]
        assert merge.distance == pytest.approx(distances[nearest], rel=1e-8)
        borders.remove(merge.border)
    assert borders == [0, strips]


@each_linkage
def test_where_nothing_is_constrained_the_tree_is_scipys(linkage: str) -> None:
    scipy = pytest.importorskip("scipy.cluster.hierarchy")
    features = planted([[8, 8], [3, 5, 6, 2], [1, 2, 4, 1, 2, 4, 1, 1]], 0.02)
    ours, theirs = body_hierarchy(features, linkage).linkage_matrix(), scipy.linkage(features, linkage)
    assert scipy.is_valid_linkage(ours)
    assert np.allclose(np.sort(ours[-7:, 2]), np.sort(theirs[-7:, 2]), rtol=1e-8)
    for clusters in (2, 4, 8):
        labels = [scipy.fcluster(matrix, clusters, "maxclust").tolist() for matrix in (ours, theirs)]
        assert np.equal.outer(labels[0], labels[0]).tolist() == np.equal.outer(labels[1], labels[1]).tolist()


def test_the_librarys_other_linkages_know_the_borders_alone() -> None:
    """Why average, complete and single linkage are computed here."""
    features = np.random.default_rng(0).normal(size=(8, 5))
    chain = np.eye(8, k=1) + np.eye(8, k=-1)
    heights = [
        scikit_learn()
        .AgglomerativeClustering(n_clusters=1, linkage=linkage, connectivity=chain, compute_distances=True)
        .fit(features)
        .distances_
        for linkage in ("average", "complete", "single")
    ]
    borders = np.sort(np.linalg.norm(np.diff(features, axis=0), axis=1))
    assert all(np.allclose(height, borders) for height in heights)


def test_a_tie_merges_nearest_to_the_head() -> None:
    features = np.repeat([[0.0], [5.0]], 4, axis=0)
    for linkage in ("average", "complete", "single"):
        tree = body_hierarchy(features, linkage)
        assert [merge.border for merge in tree.merges] == [1, 2, 3, 5, 6, 7, 4]


@each_linkage
def test_rounding_does_not_decide(linkage: str) -> None:
    """Tenths are equally far apart, but their differences as floating-point numbers are not."""
    draw = np.random.default_rng(0)
    expected = [merge[:3] for merge in body_hierarchy(np.arange(16)[:, None] / 10, linkage).merges]
    if linkage == "single":
        assert expected == [(0, border, border + 1) for border in range(1, 16)]
    for _ in range(10):
        rounded = np.arange(16)[:, None] / 10 * (1 + 1e-15 * draw.standard_normal((16, 1)))
        assert [merge[:3] for merge in body_hierarchy(rounded, linkage).merges] == expected


@each_linkage
def test_strips_that_are_all_alike_have_a_tree(linkage: str) -> None:
    tree = body_hierarchy(np.full((8, 2), 3.0), linkage)
    assert {merge.height for merge in tree.merges} == {0.0}
    assert refines(tree.splits([2, 4]))


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_strips_without_direction_are_alike(metric: str) -> None:
    features = np.zeros((4, 3))
    features[2:] = [1.0, 2.0, 4.0]
    tree = body_hierarchy(features, "average", metric, [2])
    assert tree.splits() == [[2, 2]]
    assert [merge.distance for merge in tree.merges] == pytest.approx([0, 0, 1], abs=1e-9)


@each_linkage
def test_scale_does_not_matter(linkage: str) -> None:
    features = np.random.default_rng(3).normal(size=(8, 4))
    for factor in (1e-200, 1e200):
        scaled, tree = body_hierarchy(features * factor, linkage), body_hierarchy(features, linkage)
        assert [merge[:3] for merge in scaled.merges] == [merge[:3] for merge in tree.merges]
        assert scaled.merges[-1].height == pytest.approx(tree.merges[-1].height * factor)


@pytest.mark.parametrize(
    ("features", "changes", "message"),
    [
        (np.zeros(8), {}, r"features must be numbers \[strips, d\], got an array of shape \[8\]"),
        (np.zeros((8, 0)), {}, r"got an array of shape \[8, 0\]"),
        (np.zeros((1, 2)), {}, "the rows of features must be at least 2 strips and a divisor of 64 rows, got 1"),
        (np.zeros((6, 2)), {}, "a divisor of 64 rows, got 6"),
        ([[0.0], [np.nan]], {}, "features must be finite, got NaN or infinity for strip 1"),
        ([[np.inf], [0.0]], {}, "got NaN or infinity for strip 0"),
        (np.zeros((8, 2)), {"linkage": "words"}, "linkage must be one of ward, average, complete, single, got 'words'"),
        (np.zeros((8, 2)), {"linkage": "avrage"}, "did you mean 'average'"),
        (np.zeros((8, 2)), {"metric": "cosin"}, "did you mean 'cosine'"),
        (np.zeros((8, 2)), {"metric": "cosine"}, "metric must be 'euclidean' with Ward's linkage, got 'cosine'"),
        (np.zeros((8, 2)), {"clusters": [2, 9]}, r"clusters must be at most the 8 strips, got \[2, 9\]"),
        (np.zeros((8, 2)), {"clusters": [4, 2]}, r"clusters must increase, got \[4, 2\]"),
        (np.zeros((8, 2)), {"clusters": [2, 2]}, r"clusters must increase, got \[2, 2\]"),
        (np.zeros((8, 2)), {"clusters": [0, 2]}, r"clusters must be positive numbers of regions, got \[0, 2\]"),
        (np.zeros((8, 2)), {"clusters": [2.5]}, "positive numbers of regions"),
        (np.zeros((8, 2)), {"clusters": 2}, "positive numbers of regions, got 2"),
    ],
)
def test_what_is_refused(features: object, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        body_hierarchy(features, **changes)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"pip install 'hstl_fast\[hierarchy\]'"):
        body_hierarchy(np.zeros((8, 2)))
    assert body_hierarchy(np.zeros((8, 2)), "average").strips == 8
