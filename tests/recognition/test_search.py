"""The nearest people against brute force in float64, natively and in torch, in memory and in a memory map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast import use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.evaluation import comparison
from hstl_fast.recognition import search
from hstl_fast.recognition.mapped import MappedRows
from hstl_fast.recognition.search import Nearest, best, nearest_people

Array = NDArray[np.float32]
needs_native = pytest.mark.skipif(library.cpu() is None, reason="the native module was not built")


@pytest.fixture(autouse=True, params=[pytest.param("cpu", marks=needs_native), "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every search take several pieces of the gallery and several blocks of probes."""
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 1 << 11)
    monkeypatch.setattr(search, "_GALLERY_BYTES", 1 << 12)
    monkeypatch.setattr(search, "_GATHERED_BYTES", 1 << 10)


@pytest.fixture(params=[16, 0], ids=["differences", "products"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FEW_PROBES", request.param)


def embeddings(seed: int, count: int, parts: int = 3, channels: int = 19) -> Array:
    return np.random.default_rng(seed).standard_normal((count, parts, channels), dtype=np.float32)


def near_ties() -> tuple[Array, Array]:
    """Probes, and a gallery of pairs that differ by less than float32 distances can tell, and of duplicates."""
    probe, gallery = embeddings(0, 5), embeddings(1, 90)
    gallery[30:60] = gallery[:30] + np.float32(2.0**-19) * embeddings(2, 30)
    gallery[60:75] = gallery[15:30]
    return probe, gallery


CASES: dict[str, Callable[[], tuple[Array, Array]]] = {
    "near-ties": near_ties,
    "far from zero": lambda: (embeddings(0, 6) + 5000, embeddings(1, 50) + 5000),
    "in the gallery": lambda: (near_ties()[1][10:40:10], near_ties()[1]),
    "tiny": lambda: (embeddings(0, 4) * np.float32(1e-25), embeddings(1, 40) * np.float32(1e-25)),
    "overflowing": lambda: (embeddings(0, 4) * np.float32(1e25), embeddings(1, 40) * np.float32(1e25)),
    "all equal": lambda: (embeddings(0, 1).repeat(3, 0), embeddings(0, 1).repeat(30, 0)),
    "one": lambda: (embeddings(0, 2, 1, 1), embeddings(1, 1, 1, 1)),
    "float64": lambda: tuple(each.astype(np.float64) for each in near_ties()),
}


def brute_force(probe: Array, gallery: Array, people: NDArray[np.int64], count: int) -> Nearest:
    a, b = probe.astype(np.float64)[:, None], gallery.astype(np.float64)[None]
    found = [], [], []
    for row in np.sqrt(np.square(a - b).sum(3)).mean(2):
        order = [at for at in row.argsort(kind="stable") if people[at] >= 0]
        first = {people[at]: at for at in reversed(order)}
        rows = sorted(first.values(), key=order.index)[:count]
        rest = count - len(rows)
        for into, values, missing in zip(found, (people[rows], rows, row[rows]), (-1, -1, np.inf), strict=True):
            into.append([*values, *[missing] * rest])
    return Nearest(*map(np.array, found))


def assert_equal(got: Nearest, expected: Nearest) -> None:
    np.testing.assert_array_equal(got.people, expected.people)
    np.testing.assert_array_equal(got.rows, expected.rows)
    np.testing.assert_allclose(got.distances, expected.distances, rtol=1e-12)
    assert (got.people.dtype, got.rows.dtype, got.distances.dtype) == (np.int64, np.int64, np.float64)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("case", CASES)
def test_people_are_float64s(case: str) -> None:
    probe, gallery = CASES[case]()
    numbers = np.random.default_rng(3).choice([-1, 0, 1, 3, 4, 9], len(gallery))
    several = ((numbers, 3), (np.sort(abs(numbers)), 9), (np.arange(len(gallery))[::-1].copy(), 12), (0 * numbers, 1))
    for people, count in several:
        assert_equal(nearest_people(probe, gallery, people, count), brute_force(probe, gallery, people, count))


@pytest.mark.usefixtures("few")
def test_a_memory_map_is_searched_and_its_pages_are_given_back(tmp_path: Path) -> None:
    probe, gallery = near_ties()
    (tmp_path / "file").write_bytes(bytes(100) + gallery.tobytes())
    mapped = np.memmap(tmp_path / "file", np.float32, "r", 100, gallery.shape)
    people = np.arange(len(gallery)) % 7
    for whole, some in ((mapped, gallery), (mapped[3:], gallery[3:]), (np.asarray(mapped)[:, :2], gallery[:, :2])):
        expected = brute_force(probe[:, : some.shape[1]], some, people[: len(some)], 5)
        assert_equal(nearest_people(probe[:, : some.shape[1]], whole, people[: len(some)], 5), expected)


def test_pages_that_may_be_written_are_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "file.npy", np.zeros((9, 4096), np.float32))
    copied = np.load(tmp_path / "file.npy", mmap_mode="c")
    copied[:] = 1
    MappedRows(copied).release(0, 9)
    MappedRows(np.asarray(copied)[2:]).release(0, 7)
    assert (copied == 1).all()


def test_float32_alone_would_be_wrong() -> None:
    """The near-ties of these tests are ones: the computed distances rank them otherwise."""
    probe, gallery = near_ties()
    values = search._distances(probe, gallery, lambda done: None).values.numpy()
    exact = np.sqrt(np.square(probe.astype(np.float64)[:, None] - gallery.astype(np.float64)).sum(3)).mean(2)
    assert (values.argsort(1, kind="stable") != exact.argsort(1, kind="stable")).any()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("case", ["near-ties", "far from zero", "tiny", "in the gallery"])
def test_distances_are_within_their_bounds(case: str) -> None:
    probe, gallery = CASES[case]()
    found = search._distances(probe, gallery, lambda done: None)
    exact = np.sqrt(np.square(probe.astype(np.float64)[:, None] - gallery.astype(np.float64)).sum(3)).mean(2)
    assert (abs(found.values.numpy() - exact) <= exact * found.share + found.least[:, None]).all()
    assert found.share < 1e-4


def test_merged_shares_are_the_whole() -> None:
    probe, gallery = near_ties()
    people = np.random.default_rng(3).choice(6, len(gallery))
    whole = nearest_people(probe, gallery, people, 4)
    shares = []
    for first, end in pairwise([0, 1, 40, 70, 90]):
        share = nearest_people(probe, gallery[first:end], people[first:end], 4)
        shares.append(share._replace(rows=np.where(share.rows < 0, -1, share.rows + first)))
    merged = best(Nearest(*(np.concatenate(each, 1) for each in zip(*shares, strict=True))), 4)
    for got, expected in zip(merged, whole, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_empty_sides() -> None:
    some, none, nobody = embeddings(0, 4), embeddings(0, 0), np.zeros(0, np.int64)
    assert nearest_people(none, some, np.zeros(4, np.int64), 2).people.shape == (0, 2)
    for gallery, people in ((none, nobody), (some, np.full(4, -1))):
        found = nearest_people(some, gallery, people, 2)
        assert (found.people == -1).all()
        assert (found.rows == -1).all()
        assert np.isposinf(found.distances).all()


def test_progress_counts_rows() -> None:
    calls: list[tuple[str, int, int]] = []
    probe, gallery = near_ties()
    nearest_people(probe, gallery, np.arange(90), 1, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("searching", calls[-1][2], calls[-1][2])
    assert len(calls) > 5
    assert all(one[1] <= other[1] for one, other in pairwise(calls))


def test_bad_arguments() -> None:
    x, people = embeddings(0, 4), np.arange(4)
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        nearest_people(x, x, people, 0)
    with pytest.raises(ValueError, match=r"got \[4, 3, 19\] and \[4, 2, 19\]"):
        nearest_people(x, x[:, :2], people, 1)
    with pytest.raises(ValueError, match=r"people must be int \[4\], one for each row of vectors; got int64 \[3\]"):
        nearest_people(x, x, people[:3], 1)
    with pytest.raises(ValueError, match=r"people must be int \[4\].* got float64 \[4\]"):
        nearest_people(x, x, people / 1, 1)
    for value in (np.nan, np.inf):
        bad = x.copy()
        bad[2, 1, 5] = value
        with pytest.raises(ValueError, match=r"vectors must be finite; got NaN or infinity in vectors\[2\]"):
            nearest_people(x, bad, people, 1)
        with pytest.raises(ValueError, match=r"probe must be finite; got NaN or infinity in probe\[2\]"):
            nearest_people(bad, x, people, 1)
    with pytest.raises(ValueError, match=r"vectors must not be so large that distances overflow; got .*vectors\[0\]"):
        nearest_people(x, x.astype(np.float64) * 1e300, people, 1)
