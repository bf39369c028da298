"""Searches by FAISS: candidates by the distance of whole vectors, the nearest people among them by exact distances.

The mean of the parts' distances is no distance of whole vectors, so that the candidates are a heuristic: recall says
what they miss.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recognition.made import Made
from hstl_fast.recognition.mapped import MappedRows
from hstl_fast.recognition.search import Nearest, nearest_people

# Candidates for each probe, and values of a vector that is projected at random.
CANDIDATES, PROJECTED = 200, 256
_ROWS_AT_ONCE = 2000

Find = Callable[[NDArray[np.float32]], NDArray[np.int64]]


class Index(NamedTuple):
    """A way to find candidates: rows `[n, CANDIDATES]` for probes `[n, P * C]`, -1 where there are fewer."""

    find: Find
    build_seconds: float


def _flat(made: Made) -> Index:
    """All whole vectors as they lie in the file, compared by FAISS."""
    faiss = importlib.import_module("faiss")
    whole = made.vectors.reshape(len(made.vectors), -1)
    return Index(lambda probe: faiss.knn(probe, whole, CANDIDATES)[1], 0.0)


def _projected(made: Made, description: str, settings: dict[str, int]) -> Index:
    """An index of FAISS on vectors that are projected to fewer values, which keeps distances about."""
    faiss = importlib.import_module("faiss")
    start = time.perf_counter()
    size = made.vectors[0].size
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(size, PROJECTED, generator=generator) / PROJECTED**0.5

    def project(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return (torch.from_numpy(np.array(vectors)).flatten(1) @ projection).numpy()

    pieces, mapped = [], MappedRows(made.vectors)
    for first in range(0, len(made.vectors), _ROWS_AT_ONCE):
        pieces.append(project(made.vectors[first : first + _ROWS_AT_ONCE]))
        mapped.release(first, min(first + _ROWS_AT_ONCE, len(made.vectors)))
    vectors = np.concatenate(pieces)
    index = faiss.index_factory(PROJECTED, description)
    index.train(vectors)
    index.add(vectors)
    for name, value in settings.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    built = time.perf_counter() - start
    return Index(lambda probe: index.search(project(probe), CANDIDATES)[1], built)


INDICES: dict[str, Callable[[Made], Index]] = {
    "FAISS flat": _flat,
    "FAISS flat, projected": lambda made: _projected(made, "Flat", {}),
    "FAISS HNSW, projected": lambda made: _projected(made, "HNSW32", {"efSearch": CANDIDATES}),
    "FAISS IVF, projected": lambda made: _projected(made, "IVF1024,Flat", {"nprobe": 32}),
}


def search(index: Index, made: Made, probe: NDArray[np.float32], count: int) -> Nearest:
    """Find the nearest people among the candidates.

    Args:
        index: What finds them.
        made: The gallery.
        probe: Embeddings `[n, P, C]`.
        count: How many people to find.
    """
    found: list[Any] = []
    mapped = MappedRows(made.vectors)
    for one, candidates in zip(probe, index.find(probe.reshape(len(probe), -1)), strict=True):
        rows = np.sort(candidates[candidates >= 0])
        nearest = nearest_people(one[None], np.array(made.vectors[rows]), made.people[rows], count)
        mapped.release(0, len(made.vectors))
        found.append(nearest._replace(rows=np.where(nearest.rows < 0, -1, rows[nearest.rows])))
    return Nearest(*(np.concatenate(each) for each in zip(*found, strict=True)))
