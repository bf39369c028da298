"""Embedding files: round trip, and every kind of damage answered by one ValueError."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.evaluation import (
    Embeddings,
    check_comparable,
    is_embedding_file,
    load_embeddings,
    save_embeddings,
    write_embeddings,
)


def example() -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    return Embeddings(vectors, ("ann", "b/öb", "c"), np.array([1, 30, 7]), "casia-b", "seed:3", "0.1.0")


def rewrite(path: Path, **changes: np.ndarray | None) -> None:
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_round_trip(tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", example())
    loaded = load_embeddings(tmp_path / "e.npz")
    assert np.array_equal(loaded.vectors, example().vectors)
    assert np.array_equal(loaded.lengths, example().lengths)
    assert replace(loaded, vectors=0, lengths=0) == replace(example(), vectors=0, lengths=0)
    assert is_embedding_file(tmp_path / "e.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["e.npz"]


def test_rates_are_kept(tmp_path: Path) -> None:
    rates = np.array([25, np.nan, 12.5])
    save_embeddings(tmp_path / "e.npz", replace(example(), fps=rates))
    loaded = load_embeddings(tmp_path / "e.npz").fps
    assert loaded is not None
    assert np.array_equal(loaded, rates, equal_nan=True)


def test_vectors_may_come_in_blocks(tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", example())
    vectors = example().vectors
    described = replace(example(), vectors=np.broadcast_to(np.float32(0), vectors.shape))
    with (tmp_path / "blocks.npz").open("wb") as file:
        write_embeddings(file, described, iter([vectors[:2], vectors[:0], vectors[2:]]))
    assert (tmp_path / "blocks.npz").read_bytes() == (tmp_path / "e.npz").read_bytes()


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ([np.zeros((2, 2, 4), np.float32)], "blocks must hold 3 embeddings; got 2"),
        ([np.zeros((4, 2, 4), np.float32)], r"blocks must be \[n, 2, 4\]; got \[4, 2, 4\]"),
        ([np.zeros((3, 2, 5), np.float32)], r"blocks must be \[n, 2, 4\]; got \[3, 2, 5\]"),
        ([np.zeros((1, 2, 4), np.float32), np.full((2, 2, 4), np.nan, np.float32)], "b/öb: embeddings must be finite"),
    ],
)
def test_wrong_blocks_are_refused(tmp_path: Path, blocks: list[np.ndarray], sentence: str) -> None:
    with (tmp_path / "e.npz").open("wb") as file, pytest.raises(ValueError, match=sentence):
        write_embeddings(file, example(), blocks)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": None}, "expected the arrays"),
        ({"metadata": np.array("no JSON")}, "is not an embedding file"),
        ({"metadata": np.array(json.dumps(["preset"]))}, "is not an embedding file"),
        ({"metadata": np.array(json.dumps({"preset": "casia-b"}))}, "is not an embedding file"),
        ({"embeddings": np.zeros((3, 8), np.float32)}, r"float32 \[N, P, C\]; got float32 \[3, 8\]"),
        ({"embeddings": np.zeros((3, 2, 4))}, "got float64"),
        ({"embeddings": np.zeros((0, 2, 4), np.float32)}, r"got float32 \[0, 2, 4\]"),
        ({"embeddings": np.full((3, 2, 4), np.nan, np.float32)}, f"infinity in 3, such as {example().names[0]}"),
        ({"fps": np.array([25.0])}, r"fps must be float64 \[N\], one rate per embedding; got float64 \[1\]"),
        ({"fps": np.array([25, 25, 25])}, "got int64"),
        ({"lengths": np.array([1, 2])}, "one name and one length per embedding"),
        ({"names": np.array(["a"])}, "got 3 embeddings, 1 names"),
        ({"names": np.array([{"a": 1}] * 3, dtype=object)}, "is not an embedding file"),
    ],
)
def test_wrong_content(tmp_path: Path, changes: dict[str, np.ndarray | None], sentence: str) -> None:
    path = tmp_path / "e.npz"
    save_embeddings(path, example())
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=sentence):
        load_embeddings(path)


def test_embeddings_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    vectors = example().vectors.copy()
    vectors[1, 0, 0] = np.inf
    with pytest.raises(ValueError, match=f"{example().names[1]}: embeddings must be finite"):
        save_embeddings(tmp_path / "e.npz", replace(example(), vectors=vectors))
    assert not (tmp_path / "e.npz").exists()


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    save_embeddings(path, example())
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert not is_embedding_file(path)
        with pytest.raises(ValueError, match=r"e\.npz is not an embedding file"):
            load_embeddings(path)
    harmless = 0
    for position in range(0, len(whole), 11):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        with contextlib.suppress(ValueError):
            harmless += np.array_equal(load_embeddings(path).vectors, example().vectors)
    assert harmless < len(whole) / 22


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_embeddings(tmp_path / "none.npz")
    assert not is_embedding_file(tmp_path / "none.npz")
    assert not is_embedding_file(tmp_path)


def test_comparable_needs_one_network() -> None:
    check_comparable(example(), example())
    with pytest.raises(ValueError, match="same preset to be compared; got casia-b and grew"):
        check_comparable(example(), replace(example(), preset="grew"))
    with pytest.raises(ValueError, match="same weights to be compared; got seed:3 and seed:4"):
        check_comparable(example(), replace(example(), weights="seed:4"))
