"""Searches against brute force in float64, natively and in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hstl_fast import use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.evaluation import comparison, search
from hstl_fast.evaluation.comparison import Comparison
from hstl_fast.evaluation.search import match_positions, nearest_of_groups, top

Array = NDArray[np.float32]
METRICS = ("euclidean", "cosine")
needs_native = pytest.mark.skipif(library.cpu() is None, reason="the native module was not built")


@pytest.fixture(autouse=True, params=[pytest.param("cpu", marks=needs_native), "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every search take several blocks and pieces."""
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 1 << 15)
    monkeypatch.setattr(search, "_DISTANCES_AT_ONCE", 1 << 10)


def brute_force(probe: Array, gallery: Array, metric: str) -> NDArray[np.float64]:
    a, b = probe.astype(np.float64)[:, None], gallery.astype(np.float64)[None]
    if metric == "euclidean":
        return np.sqrt(np.square(a - b).sum(3)).mean(2)
    norms = np.linalg.norm(a, axis=3) * np.linalg.norm(b, axis=3)
    return 1 - ((a * b).sum(3) / norms).mean(2)


def embeddings(seed: int, count: int, parts: int = 3, channels: int = 19) -> Array:
    return np.random.default_rng(seed).standard_normal((count, parts, channels), dtype=np.float32)


def some_huge(seed: int, count: int) -> Array:
    """Embeddings of which the squares of every other one overflow."""
    vectors = embeddings(seed, count)
    vectors[::2] *= np.float32(1e25)
    return vectors


def near_ties() -> tuple[Array, Array]:
    """Probes, and a gallery of pairs that differ by less than float32 distances can tell, and of duplicates."""
    probe, gallery = embeddings(0, 23), embeddings(1, 90)
    nudge = np.float32(2.0**-19) * embeddings(2, 30)
    gallery[30:60] = gallery[:30] + nudge
    gallery[60:75] = gallery[15:30]
    return probe, gallery


CASES: dict[str, Callable[[], tuple[Array, Array]]] = {
    "near-ties": near_ties,
    "one each": lambda: (embeddings(0, 1), embeddings(1, 1)),
    "one part": lambda: (embeddings(0, 9, 1, 1), embeddings(1, 40, 1, 1)),
    "whole vectors": lambda: (embeddings(0, 5, 2, 64), embeddings(1, 120, 2, 64)),
    "far from zero": lambda: (embeddings(0, 6) + 5000, embeddings(1, 50) + 5000),
    "around two points": lambda: (embeddings(0, 6) - 3000, np.concatenate([embeddings(1, 20) - 3000, near_ties()[1]])),
    "tiny": lambda: (embeddings(0, 6) * np.float32(1e-25), embeddings(1, 50) * np.float32(1e-25)),
    "overflowing": lambda: (embeddings(0, 6) * np.float32(1e25), embeddings(1, 50) * np.float32(1e25)),
    "some overflowing": lambda: (some_huge(0, 6), some_huge(1, 50)),
    "all equal": lambda: (embeddings(0, 1).repeat(4, 0), embeddings(0, 1).repeat(30, 0)),
}
CLOSE_IN_COSINE = ("tiny", "one part", "far from zero", "around two points", "all equal")


def cases() -> list[object]:
    # Where the cosines of float64 themselves depend on the order of its sums, and below the least norm, no order of
    # theirs is right.
    return [
        pytest.param(metric, case, id=f"{metric}-{case}")
        for metric in METRICS
        for case in CASES
        if metric == "euclidean" or case not in CLOSE_IN_COSINE
    ]


@pytest.mark.parametrize(("metric", "case"), cases())
def test_top_is_float64s(metric: str, case: str) -> None:
    probe, gallery = CASES[case]()
    expected = brute_force(probe, gallery, metric)
    order = expected.argsort(axis=1, kind="stable")
    for count in (1, 7, len(gallery), len(gallery) + 5):
        indices, distances = top(probe, gallery, count, metric)
        assert indices.dtype == np.intp
        np.testing.assert_array_equal(indices, order[:, :count])
        np.testing.assert_allclose(distances, np.take_along_axis(expected, indices, 1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("metric", "case"), cases())
def test_nearest_of_groups_is_float64s(metric: str, case: str) -> None:
    probe, gallery = CASES[case]()
    groups = np.random.default_rng(3).choice([-1, 0, 1, 3], len(gallery))
    groups[0] = 3
    expected = np.full((len(probe), 4), -1)
    distances = brute_force(probe, gallery, metric)
    for group in range(4):
        members = np.flatnonzero(groups == group)
        if len(members):
            expected[:, group] = members[distances[:, members].argmin(1)]
    np.testing.assert_array_equal(nearest_of_groups(probe, gallery, groups, metric), expected)


@pytest.mark.parametrize(("metric", "case"), cases())
def test_match_positions_are_float64s(metric: str, case: str) -> None:
    probe, gallery = CASES[case]()
    people = np.arange(len(gallery)) % 5
    cameras = np.arange(len(gallery)) % 3
    found = match_positions(probe, gallery, lambda i: people == i % 6, lambda i: cameras == i % 3, metric)
    everything = match_positions(probe, gallery, lambda i: people == i % 6, metric=metric)
    assert len(found) == len(everything) == len(probe)
    for i, row in enumerate(brute_force(probe, gallery, metric)):
        for positions, ranked in ((found[i], np.flatnonzero(cameras != i % 3)), (everything[i], np.arange(len(row)))):
            order = ranked[row[ranked].argsort(kind="stable")]
            np.testing.assert_array_equal(positions, np.flatnonzero(people[order] == i % 6))


def test_float32_alone_would_be_wrong() -> None:
    """The near-ties of these tests are ones: the distances of a block rank them otherwise."""
    probe, gallery = near_ties()
    ((_, block), *_) = Comparison(probe, gallery, "euclidean").blocks()
    expected = brute_force(probe[: len(block)], gallery, "euclidean").argsort(axis=1, kind="stable")
    assert (block.numpy().argsort(axis=1, kind="stable") != expected).any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", ["near-ties", "far from zero", "whole vectors", "tiny", "around two points"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_distances_are_within_their_bounds(case: str, metric: str, kind: type[np.float32]) -> None:
    probe, gallery = (x.astype(kind) for x in CASES[case]())
    compared = Comparison(probe, gallery, metric)
    expected = brute_force(probe, gallery, metric)
    if metric == "cosine" and case == "tiny":
        return  # below the least norm
    for start, block in compared.blocks():
        bounds = compared.bounds[start : start + len(block), None]
        allowed = bounds + 4e-15 * np.abs(expected).max()  # of the brute force
        assert (np.abs(block.numpy() - expected[start : start + len(block)]) <= allowed).all()
    if metric == "euclidean" and kind == np.float32 and case != "tiny":
        assert compared.bounds.max() < 2e-4 * expected.max()


def test_blocks_do_not_change_results(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    probe, gallery = embeddings(0, 300), embeddings(1, 130)
    rows = []
    for size in (1 << 15, 1 << 17, 1 << 28):
        monkeypatch.setattr(comparison, "BLOCK_BYTES", size)
        rows.append(
            np.concatenate([block.numpy().copy() for _, block in Comparison(probe, gallery, "cosine").blocks()])
        )
    for one, other in pairwise(rows):
        if backend == "cpu":
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, gallery = embeddings(0, 500, 2, 8), embeddings(1, 200, 2, 8)
    sizes = [block.nbytes for _, block in Comparison(probe, gallery, "euclidean").blocks()]
    assert len(sizes) > 10
    assert max(sizes) <= comparison.BLOCK_BYTES
    taken = []
    monkeypatch.setattr(
        search, "_up_to", lambda part, *rest, up_to=search._up_to: taken.append(part.numel()) or up_to(part, *rest)
    )
    top(probe, gallery, 3)
    assert sum(taken) == len(probe) * len(gallery)
    assert max(taken) <= search._DISTANCES_AT_ONCE


def test_progress_counts_probes() -> None:
    calls: list[tuple[str, int, int]] = []
    top(embeddings(0, 200), embeddings(1, 100), 1, progress=lambda *call: calls.append(call))
    assert calls[0] == ("comparing", 0, 200)
    assert calls[-1] == ("comparing", 200, 200)
    assert len(calls) > 3
    assert all(one[1] < other[1] for one, other in pairwise(calls))


def test_empty_sides() -> None:
    some, none = embeddings(0, 4), embeddings(0, 0)
    assert nearest_of_groups(some, none, np.zeros(0, np.intp)).shape == (4, 0)
    assert nearest_of_groups(none, some, np.zeros(4, np.intp)).shape == (0, 1)
    assert nearest_of_groups(some, some, np.full(4, -1)).shape == (4, 0)
    assert [array.shape for array in top(some, none, 3)] == [(4, 0), (4, 0)]
    assert top(none, some, 3)[0].shape == (0, 3)
    assert [len(each) for each in match_positions(some, none, lambda i: np.zeros(0, np.bool_))] == [0] * 4
    assert match_positions(none, some, lambda i: np.zeros(4, np.bool_)) == []


def test_pairs_may_be_named_by_arrays_that_are_not_contiguous() -> None:
    random = np.random.default_rng(0)
    probe, gallery = (random.normal(size=(n, 2, 4)).astype(np.float32) for n in (5, 7))
    rows, columns = np.nonzero(np.ones((5, 7), np.bool_))
    found = Comparison(probe, gallery, "euclidean").exact(rows, columns)
    np.testing.assert_allclose(found.reshape(5, 7), brute_force(probe, gallery, "euclidean"), rtol=1e-12)


def test_any_array_is_taken() -> None:
    probe, gallery = near_ties()
    expected = top(probe, gallery, 5)[0]
    gallery_file = gallery.copy()
    gallery_file.flags.writeable = False  # as of a memory-mapped file
    strided = np.asfortranarray(probe)
    np.testing.assert_array_equal(top(strided, gallery_file, 5)[0], expected)
    np.testing.assert_array_equal(top(probe.astype(np.float64), gallery, 5)[0], expected)
    half = gallery.astype(np.float16)
    np.testing.assert_array_equal(top(half, half, 5)[0], top(half.astype(np.float32), half.astype(np.float32), 5)[0])


def test_bad_arguments() -> None:
    x = embeddings(0, 4)
    with pytest.raises(ValueError, match="metric must be one of euclidean, cosine; got 'l1'"):
        top(x, x, 1, "l1")
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        top(x, x, 0)
    with pytest.raises(ValueError, match=r"got \[4, 3, 19\] and \[4, 2, 19\]"):
        top(x, x[:, :2], 1)
    with pytest.raises(ValueError, match=r"groups must be int \[4\], one for each gallery sequence; got int64 \[3\]"):
        nearest_of_groups(x, x, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"matches must return bool \[4\]; got bool \[3\]"):
        match_positions(x, x, lambda i: np.zeros(3, np.bool_))
    with pytest.raises(ValueError, match=r"excluded must return bool \[4\]; got int64 \[4\]"):
        match_positions(x, x, lambda i: np.zeros(4, np.bool_), lambda i: np.zeros(4, np.int64))
    for value in (np.nan, np.inf, -np.inf):
        bad = x.copy()
        bad[2, 1, 5] = value
        with pytest.raises(ValueError, match=r"gallery must be finite; got NaN or infinity in gallery\[2\]"):
            top(x, bad, 1)
        with pytest.raises(ValueError, match=r"probe must be finite; got NaN or infinity in probe\[2\]"):
            match_positions(bad, x, lambda i: np.zeros(4, np.bool_))


def test_threads_do_not_change_results(backend: str) -> None:
    probe, gallery = near_ties()
    before = torch.get_num_threads()
    rows = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            blocks = [block.clone() for _, block in Comparison(probe, gallery, "euclidean").blocks()]
            rows.append(torch.cat(blocks))
    finally:
        torch.set_num_threads(before)
    for other in rows[1:]:
        assert torch.equal(rows[0], other)
