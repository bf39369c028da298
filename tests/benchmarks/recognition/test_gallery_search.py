"""The benchmark of searches in large galleries: what it draws, checks and prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.core.names import OURS
from benchmarks.recognition import candidates, gallery_search, made
from benchmarks.recognition.made import Made
from hstl_fast.recognition.search import Nearest, nearest_people


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "PARTS", 8)
        patch.setattr(made, "CHANNELS", 32)
        made._views.cache_clear()
        made._directions.cache_clear()
        made._walks.cache_clear()
        yield made.gallery(tmp_path_factory.mktemp("made"), 90, 30, 64)
    made._views.cache_clear()
    made._directions.cache_clear()
    made._walks.cache_clear()


def found_in(drawn: Made) -> Nearest:
    return nearest_people(drawn.probe, drawn.vectors, drawn.people, gallery_search.COUNT)


def test_people_are_clusters(drawn: Made) -> None:
    assert drawn.vectors.shape == (90, 8, 32)
    assert np.bincount(drawn.people).tolist() == [3] * 30
    shown = np.linspace(0, 29, 64).astype(int)
    known = np.arange(64) % made.STRANGER != made.STRANGER - 1
    assert (found_in(drawn).people[known, 0] == shown[known]).mean() > 0.9


def test_wrong_answers_are_told(drawn: Made) -> None:
    found, expected = found_in(drawn), gallery_search.in_float64(drawn)
    assert gallery_search.fault_of(found, expected) is None
    assert gallery_search.fault_of(found._replace(rows=found.rows + 1), expected) == "WRONG rows"
    wrong = gallery_search.fault_of(found._replace(distances=found.distances * (1 + 1e-6)), expected)
    assert wrong == "WRONG distances: error 1.0e-06"


def test_candidates_are_ranked_by_exact_distances(drawn: Made) -> None:
    everything = candidates.Index(lambda probe: np.tile(np.arange(90)[::-1], (len(probe), 1)), 0.0)
    for got, expected in zip(candidates.search(everything, drawn, drawn.probe, 5), found_in(drawn), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_table_has_every_way() -> None:
    seconds = {str(n): {"median": n / 8} for n in gallery_search.SIZES}
    way: dict[str, Any] = {"seconds": seconds, "peak_bytes": 1 << 30, "recall_of_first": 1.0, "recall_of_all": 0.5}
    ways = {OURS: {**way, "cold_seconds": [2.5]}, "FAISS flat": {"fault": "FAILED: no FAISS"}}
    lines = gallery_search.lines_of({"ways": ways})
    assert lines[2] == f"| {OURS} | 0.12 | 1.00 | 8.00 | 2.50 | 1.00 | 0.0 | 1.000 | 0.500 |"
    assert "FAILED: no FAISS" in lines[3]


def test_a_process_tells_its_memory(tmp_path: Path) -> None:
    peak = gallery_search._peak_bytes()
    assert peak is None or peak > 1 << 20
