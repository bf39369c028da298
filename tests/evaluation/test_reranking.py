"""Re-ranking against the field's evaluator, and against the formulas on sets."""

import math

import numpy as np
import pytest
import torch

from hstl_fast.evaluation import evaluate, part_distances, rerank, reranking
from tests.golden import recipe


def distances_of(vectors: np.ndarray) -> np.ndarray:
    embeddings = torch.from_numpy(vectors)
    return part_distances(embeddings, embeddings).numpy()


def test_is_that_of_the_fields_evaluator() -> None:
    golden = recipe.load("evaluation")
    vectors = np.concatenate([golden["distance/probe"], golden["distance/gallery"]])
    for metric, name in (("euclidean", "euc"), ("cosine", "cos")):
        sides = (torch.from_numpy(golden[f"distance/{side}"]) for side in ("probe", "gallery"))
        assert np.allclose(part_distances(*sides, metric).numpy(), golden[f"distance/{name}"], rtol=0, atol=1e-5)
    found = rerank(distances_of(vectors), 7)
    assert found.dtype == np.float32
    assert np.allclose(found, golden["distance/reranked"], rtol=0, atol=1e-5)


def test_float16_and_float64_differ_by_the_rounding_of_float16() -> None:
    distances = distances_of(np.random.default_rng(1).normal(size=(40, 3, 4)).astype(np.float32))
    coarse, fine = rerank(distances, 10), rerank(distances, 10, dtype=np.float64)
    assert fine.dtype == np.float64
    assert 0 < np.abs(coarse - fine).max() < 2e-3


def spelled_out(distances: np.ndarray, probes: int, k1: int, k2: int, weight: float) -> np.ndarray:
    """Section 3 of the paper, with sets and dictionaries."""
    count = len(distances)
    scaled = [[d / max(row) for d in row] for row in distances.astype(float).tolist()]
    order = [sorted(range(count), key=lambda j, row=row: row[j]) for row in scaled]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    encodings = []
    for i in range(count):
        neighbours = reciprocal(i, k1)
        expanded = set(neighbours)
        for j in neighbours:
            theirs = reciprocal(j, round(k1 / 2))
            if len(theirs & neighbours) > 2 / 3 * len(theirs):
                expanded |= theirs
        weights = {j: math.exp(-scaled[i][j]) for j in expanded}
        total = sum(weights.values())
        encodings.append({j: value / total for j, value in weights.items()})
    averaged = [
        {j: sum(encodings[n].get(j, 0) for n in order[i][:k2]) / k2 for j in range(count)} for i in range(count)
    ]
    result = np.empty((probes, count - probes))
    for i in range(probes):
        for g in range(probes, count):
            least = sum(min(averaged[i][j], averaged[g][j]) for j in range(count))
            most = sum(max(averaged[i][j], averaged[g][j]) for j in range(count))
            result[i, g - probes] = (1 - weight) * (1 - least / most) + weight * scaled[i][g]
    return result


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 6, 0.3), (20, 6, 0.3), (3, 1, 0.5), (5, 2, 0.0), (4, 3, 1.0)])
def test_is_the_papers_formula(k1: int, k2: int, weight: float) -> None:
    vectors = np.random.default_rng(k1).normal(size=(24, 2, 3)).astype(np.float32)
    vectors[12:] = vectors[:12] + 0.3 * vectors[12:]
    distances = distances_of(vectors)
    found = rerank(distances, 8, k1, k2, weight, dtype=np.float64)
    assert np.allclose(found, spelled_out(distances, 8, k1, k2, weight), rtol=0, atol=1e-12)


def test_equal_embeddings_keep_their_order() -> None:
    """More equal sequences than neighbours: everything stays finite, and nearest comes first."""
    vectors = np.zeros((20, 1, 2), np.float32)
    vectors[15:] = 1
    found = rerank(distances_of(vectors), 4)
    assert np.isfinite(found).all()
    assert (found[:, :11].max(axis=1) < found[:, 11:].min(axis=1)).all()
    same = rerank(np.zeros((5, 5), np.float32), 2)
    assert np.isfinite(same).all()


def test_reports_progress() -> None:
    seen = []
    rerank(distances_of(np.eye(6, dtype=np.float32)[:, None]), 3, progress=lambda *each: seen.append(each))
    assert seen[-1] == ("re-ranking", 3, 3)


def test_protocols_rank_by_it() -> None:
    golden = recipe.load("evaluation")
    arguments = [golden[f"gait3d/{name}"] for name in ("embeddings", "labels", "types", "views")]
    vectors, labels, types, views = arguments
    names = ["-".join(each) for each in zip(labels, types, views, strict=True)]
    is_probe = np.isin(names, golden["gait3d/probes"])
    probe, gallery = np.flatnonzero(is_probe), np.flatnonzero(~is_probe)
    distances = rerank(distances_of(vectors[np.concatenate([probe, gallery])]), len(probe))
    right = (labels[gallery][distances.argmin(axis=1)] == labels[probe])[np.isin(labels[probe], labels[gallery])]
    assert len(right) == len(probe) - 2
    found = evaluate("gait3d", *arguments, probes=golden["gait3d/probes"], rerank=True)["results"]
    plain = evaluate("gait3d", *arguments, probes=golden["gait3d/probes"])["results"]
    assert found["rank1"] == pytest.approx(100 * right.mean())
    assert found != plain


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"distances": np.zeros((3, 4), np.float32)}, "distances must be [n + k, n + k], of all sequences; got [3, 4]"),
        ({"probes": 4}, "probes must be 1 to 3, the gallery is not empty; got 4"),
        ({"k1": 0}, "k1 and k2 must be at least 1 and weight 0 to 1; got 0, 6 and 0.3"),
        ({"weight": 2}, "k1 and k2 must be at least 1 and weight 0 to 1; got 6, 6 and 2"),
    ],
)
def test_arguments_that_are_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        rerank(**({"distances": np.zeros((4, 4), np.float32), "probes": 2} | change))
    assert str(error.value) == sentence


def test_too_many_sequences_are_refused_before_the_work_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "MEMORY_LIMIT", 14 * 5**2)
    reranking.check_rerank_memory(5)
    arguments = (np.ones((6, 1, 1), np.float32), list("aabbcc"), ["01", "02"] * 3, ["x"] * 6)
    with pytest.raises(ValueError, match=r"all 6 sequences with each other .* 5 sequences$"):
        evaluate("grew-validation", *arguments, rerank=True)


def test_the_limit_takes_gait3ds_test_set() -> None:
    reranking.check_rerank_memory(6369)
    with pytest.raises(ValueError, match=r"would need 16\.9 GiB; at most 4 GiB"):
        reranking.check_rerank_memory(36_000)
