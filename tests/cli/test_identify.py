"""`hstl-fast identify`: rankings from files and from silhouettes, and what cannot be compared."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.evaluation import load_embeddings
from tests.cli.helpers import run


def test_same_sequences_are_nearest_at_distance_zero(gallery: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", tmp_path / "g.npz", "--top", 1)
    rows = [line.split() for line in result.stdout.splitlines()[1:4]]
    assert rows == [[f"person-{i}", "1", f"person-{i}", "0.000000"] for i in range(3)]
    assert "rank-1: 3 of 3 (100.0%)" in result.stdout
    assert "untrained" not in result.stderr, "no network was needed"


def test_lists_are_ordered_and_written_alike(gallery: Path, probe: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    run("embed", probe, "-o", tmp_path / "p.npz")
    files = ["--csv", tmp_path / "out.csv", "--json", tmp_path / "out.json"]
    run("identify", "--gallery", tmp_path / "g.npz", "--probe", tmp_path / "p.npz", "--top", 2, *files)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    document = json.loads((tmp_path / "out.json").read_text())
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert (document["preset"], document["weights"], document["metric"]) == ("casia-b", "seed:2023", "euclidean")
    assert document["rank_1"]["probes"] == 2
    flat = [(p["probe"], m["rank"], m["gallery"], m["distance"]) for p in document["probes"] for m in p["matches"]]
    assert flat == [(r["probe"], int(r["rank"]), r["gallery"], float(r["distance"])) for r in rows]

    g, p = load_embeddings(tmp_path / "g.npz"), load_embeddings(tmp_path / "p.npz")
    for i, name in enumerate(p.names):
        distances = np.linalg.norm(g.vectors.astype(float) - p.vectors[i].astype(float), axis=2).mean(1)
        expected = sorted(zip(distances, g.names, strict=True))[:2]
        found = [(distance, gallery_name) for probe_name, _, gallery_name, distance in flat if probe_name == name]
        assert [n for _, n in found] == [n for _, n in expected]
        assert np.allclose([d for d, _ in found], [d for d, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_silhouettes_on_the_fly_equal_files(gallery: Path, probe: Path, tmp_path: Path, metric: str) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz", "--seed", 5)
    run("embed", probe, "-o", tmp_path / "p.npz", "--seed", 5)
    outputs = []
    for left, right, options in [
        (tmp_path / "g.npz", tmp_path / "p.npz", []),
        (tmp_path / "g.npz", probe, []),
        (gallery, tmp_path / "p.npz", []),
        (gallery, probe, ["--seed", 5]),
    ]:
        outputs.append(run("identify", "--gallery", left, "--probe", right, "--metric", metric, *options).stdout)
    assert len(set(outputs)) == 1


def test_bad_probe_is_listed_and_the_others_ranked(gallery: Path, probe: Path) -> None:
    (probe / "broken.npy").write_bytes(b"nonsense")
    result = run("identify", "--gallery", gallery, "--probe", probe, exit_code=1)
    assert "rank-1:" in result.stdout
    assert "1 failed:" in result.stderr
    assert "broken.npy" in result.stderr.split("1 failed:")[1]


def test_no_usable_side(gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.csv"
    result = run("identify", "--gallery", gallery, "--probe", tmp_path / "empty", "--csv", out, exit_code=1)
    assert "1 failed:" in result.stderr
    assert not out.exists()


def test_other_weights_are_refused(gallery: Path, probe: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    run("embed", probe, "-o", tmp_path / "seed.npz", "--seed", 1)
    run("embed", probe, "-o", tmp_path / "preset.npz", "--preset", "gait3d")
    for other, what in (("seed", "the same weights"), ("preset", "the same preset")):
        result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", tmp_path / f"{other}.npz", exit_code=1)
        assert what in result.stderr
    result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", probe, "--preset", "gait3d", exit_code=1)
    assert "the same preset" in result.stderr


def test_metric_has_a_nearest_name(gallery: Path) -> None:
    result = run("identify", "--gallery", gallery, "--probe", gallery, "--metric", "cosin", exit_code=2)
    assert "did you mean 'cosine'?" in result.stderr
