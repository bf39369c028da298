"""Comparison of sequences by their embeddings: files, distances and rankings. Needs torch and numpy only."""

from hstl_fast.evaluation.distances import METRICS, part_distances
from hstl_fast.evaluation.embeddings import (
    Embeddings,
    check_comparable,
    finite_rows,
    is_embedding_file,
    load_embeddings,
    save_embeddings,
    write_embeddings,
)
from hstl_fast.evaluation.ranking import identity, nearest, rank_one

__all__ = [
    "METRICS",
    "Embeddings",
    "check_comparable",
    "finite_rows",
    "identity",
    "is_embedding_file",
    "load_embeddings",
    "nearest",
    "part_distances",
    "rank_one",
    "save_embeddings",
    "write_embeddings",
]
