"""Comparison of sequences by their embeddings: files, distances, rankings and protocols. Needs torch and numpy only."""

from hstl_fast.evaluation.curves import average_precision, cumulative_matches, inverse_negative_penalty
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
from hstl_fast.evaluation.protocols import PROTOCOLS, evaluate
from hstl_fast.evaluation.ranking import identity, nearest, rank_one
from hstl_fast.evaluation.reranking import rerank

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Embeddings",
    "average_precision",
    "check_comparable",
    "cumulative_matches",
    "evaluate",
    "finite_rows",
    "identity",
    "inverse_negative_penalty",
    "is_embedding_file",
    "load_embeddings",
    "nearest",
    "part_distances",
    "rank_one",
    "rerank",
    "save_embeddings",
    "write_embeddings",
]
