"""`hstl-fast identify`: rankings from files and from silhouettes, and what cannot be compared."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.evaluation import Embeddings, load_embeddings, save_embeddings
from hstl_fast.network import SHIPPED_FILE, Network
from tests.cli.helpers import run


def test_probes_in_the_gallery_are_left_out_of_their_own_rankings(gallery: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    run("embed", gallery / "person-2.npy", "-o", tmp_path / "p.npz")  # alone: another batch, other last bits
    for probe, count in ((tmp_path / "g.npz", 3), (tmp_path / "p.npz", 1), (gallery, 3)):
        out = tmp_path / "out.json"
        result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", probe, "--json", out)
        document = json.loads(out.read_text())
        assert document["left_out_of_own_ranking"] == count
        for found in document["probes"]:
            assert len(found["matches"]) == 2
            assert found["probe"] not in [match["gallery"] for match in found["matches"]]
        assert f"left out of their own rankings: {count}, such as person-" in result.stdout
        assert "rank-1 is not printed: no probe has its person in the gallery with another" in result.stdout
        assert document["rank_1"] is None


def stored(path: Path, names: list[str], vectors: list[float], fps: list[float] | None = None) -> Path:
    """An embedding file of one part and two channels, (1, x) for each x."""
    pairs = np.array([[[1, x]] for x in vectors], np.float32)
    rates = None if fps is None else np.array(fps)
    lengths = np.ones(len(names), np.int64)
    save_embeddings(path, Embeddings(pairs, tuple(names), lengths, "casia-b", "seed:1", "0", rates))
    return path


def test_copies_of_a_probe_under_other_names_are_left_out(tmp_path: Path) -> None:
    names = ["a/1", "b/1", "c/1", "d/1", "a/2", "e/1"]
    gallery = stored(tmp_path / "g.npz", names, [0, 0, 0, 0, 0.3, 0.5])
    probe = stored(tmp_path / "p.npz", ["a/1", "e/9"], [0, 0.5 + 1e-5])
    result = run("identify", "--gallery", gallery, "--probe", probe, "--top", 1)
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:3]] == [["a/1", "1", "a/2"], ["e/9", "1", "a/2"]]
    assert "gallery: 5 people, 6 sequences" in result.stdout
    assert "probe: 2 people, 2 sequences" in result.stdout
    assert "rank-1: 1 of 1 (100.0%)" in result.stdout, "e has no other sequence"


def test_one_name_with_two_embeddings_is_said(tmp_path: Path) -> None:
    gallery = stored(tmp_path / "g.npz", ["a/1", "b/1"], [0, 1])
    probe = stored(tmp_path / "p.npz", ["a/1"], [0.4])
    result = run("identify", "--gallery", gallery, "--probe", probe)
    assert "another embedding, ranked as different sequences: 1, such as a/1" in result.stdout
    assert "rank-1: 1 of 1" in result.stdout
    assert "probe: 1 person, 1 sequence\n" in result.stdout


@pytest.mark.parametrize(
    ("gallery_names", "probe_names", "reason"),
    [
        (["CASIA-B/001", "CASIA-B/002"], ["CASIA-B/003"], "the whole gallery, 2 sequences, is one person, CASIA-B"),
        (["a/1", "a/2"], ["a/3", "b/1"], "is one person, a"),
        (["street-track01", "b"], ["b/2"], "1 sequences are those of tracks, such as street-track01"),
        (["a", "b"], ["x/x-track02", "a/2"], "of tracks, such as x/x-track02"),
        (["a", "b"], ["out/track3", "a/2"], "of tracks, such as out/track3"),
        (["a", "b"], ["c", "d"], "no probe has its person in the gallery"),
    ],
)
def test_rank_one_is_printed_only_where_it_means_something(
    tmp_path: Path, gallery_names: list[str], probe_names: list[str], reason: str
) -> None:
    gallery = stored(tmp_path / "g.npz", gallery_names, [0.1 * i for i in range(len(gallery_names))])
    probe = stored(tmp_path / "p.npz", probe_names, [0.55 + 0.1 * i for i in range(len(probe_names))])
    result = run("identify", "--gallery", gallery, "--probe", probe)
    assert "rank-1 is not printed: " in result.stdout
    assert reason in result.stdout
    assert "%" not in result.stdout


def test_options_of_data_are_refused_where_both_sides_are_embeddings(tmp_path: Path) -> None:
    path = stored(tmp_path / "g.npz", ["a/1", "b/1"], [0, 1])
    options = ["--strict", "--report", tmp_path / "r.txt"]
    result = run("identify", "--gallery", path, "--probe", path, *options, exit_code=2)
    assert "--strict, --report: expected data to be embedded; both inputs hold embeddings" in result.stderr
    assert not (tmp_path / "r.txt").exists()


def test_tracks_sorted_by_person_are_people(tmp_path: Path) -> None:
    gallery = stored(tmp_path / "g.npz", ["ann/street-track01", "bo/street-track02"], [0, 1])
    probe = stored(tmp_path / "p.npz", ["ann/park-track07"], [0.2])
    assert "rank-1: 1 of 1" in run("identify", "--gallery", gallery, "--probe", probe).stdout


def test_a_person_is_one_whichever_way_the_name_is_composed(tmp_path: Path) -> None:
    gallery = stored(tmp_path / "g.npz", ["jo\u0308rg/1", "bo/1"], [0, 1])
    probe = stored(tmp_path / "p.npz", ["j\u00f6rg/2"], [0.2])
    assert "rank-1: 1 of 1" in run("identify", "--gallery", gallery, "--probe", probe).stdout


@pytest.mark.parametrize(
    ("gallery_rates", "probe_rates", "warned"),
    [
        ([25, 25], [12.5], True),
        ([25, 30], [25], True),
        ([25, 25], [25.9], False),
        ([25, float("nan")], [25], False),
        ([float("nan")] * 2, [5], False),
        (None, [5], False),
    ],
)
def test_other_frame_rates_are_named(
    tmp_path: Path, gallery_rates: list[float] | None, probe_rates: list[float], warned: bool
) -> None:
    gallery = stored(tmp_path / "g.npz", ["a/1", "b/1"], [0, 1], gallery_rates)
    probe = stored(tmp_path / "p.npz", ["a/2"], [0.2], probe_rates)
    result = run("identify", "--gallery", gallery, "--probe", probe)
    assert ("frames per second and the probes at" in result.stderr) == warned


def test_lists_are_ordered_and_written_alike(gallery: Path, probe: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    run("embed", probe, "-o", tmp_path / "p.npz")
    files = ["--csv", tmp_path / "out.csv", "--json", tmp_path / "out.json"]
    run("identify", "--gallery", tmp_path / "g.npz", "--probe", tmp_path / "p.npz", "--top", 2, *files)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    document = json.loads((tmp_path / "out.json").read_text())
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert (document["preset"], document["weights"], document["metric"]) == (
        "walkers",
        Network.shipped().weights,
        "euclidean",
    )
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
    (tmp_path / "empty" / "broken.npy").write_bytes(b"nonsense")
    out = tmp_path / "out.csv"
    result = run("identify", "--gallery", gallery, "--probe", tmp_path / "empty", "--csv", out, exit_code=1)
    assert "1 failed:" in result.stderr
    assert not out.exists()


def test_other_weights_are_refused(gallery: Path, probe: Path, tmp_path: Path) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz", "--seed", 2)
    run("embed", probe, "-o", tmp_path / "seed.npz", "--seed", 1)
    run("embed", probe, "-o", tmp_path / "preset.npz", "--preset", "gait3d")
    run("embed", probe, "-o", tmp_path / "shipped.npz")
    for other, what in (("seed", "the same weights"), ("preset", "the same preset"), ("shipped", "the same preset")):
        result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", tmp_path / f"{other}.npz", exit_code=1)
        assert what in result.stderr
    result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", probe, "--preset", "gait3d", exit_code=1)
    assert "the same preset" in result.stderr


def test_embeddings_of_the_network_that_comes_along_need_no_checkpoint(
    gallery: Path, probe: Path, tmp_path: Path
) -> None:
    run("embed", gallery, "-o", tmp_path / "g.npz")
    run("embed", probe, "-o", tmp_path / "p.npz")
    printed = [
        run("identify", "--gallery", tmp_path / "g.npz", "--probe", other).stdout
        for other in (probe, tmp_path / "p.npz")
    ]
    assert printed[0] == printed[1]
    result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", probe, "--checkpoint", SHIPPED_FILE)
    assert result.stdout == printed[0]
    result = run("identify", "--gallery", tmp_path / "g.npz", "--probe", probe, "--seed", 1, exit_code=1)
    assert "the same preset" in result.stderr


def test_metric_has_a_nearest_name(gallery: Path) -> None:
    result = run("identify", "--gallery", gallery, "--probe", gallery, "--metric", "cosin", exit_code=2)
    assert "did you mean 'cosine'?" in result.stderr
