"""`hstl-fast evaluate --open-set`: who is unknown, numbers for a person and as files, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.data import Item
from hstl_fast.evaluation import Embeddings, load_embeddings, save_embeddings
from hstl_fast.evaluation.open_set import open_set
from hstl_fast.evaluation.open_set_division import divide, draw_people
from hstl_fast.silhouettes.energy import gait_energy_image
from tests.cli.helpers import run, walker

TYPES = [f"nm-0{n}" for n in range(1, 7)] + ["bg-01", "cl-01"]


def embedded(
    path: Path, people: int, seed: int = 0, weights: str = "sha256:0", prefix: str = "", views: int = 1
) -> Path:
    """Embeddings of people at random places, each with recordings around it."""
    random = np.random.default_rng(seed)
    places = np.random.default_rng(0).normal(size=(people, 1, 2, 4))
    vectors = (
        (places + 0.4 * random.normal(size=(people, len(TYPES) * views, 2, 4))).reshape(-1, 2, 4).astype(np.float32)
    )
    cameras = ("090", "126")[:views]
    names = tuple(
        f"{prefix}{person:03d}/{type_}/{view}" for person in range(people) for type_ in TYPES for view in cameras
    )
    save_embeddings(path, Embeddings(vectors, names, np.full(len(names), 30), "casia-b", weights, "0.1.0"))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded(tmp_path_factory.mktemp("open") / "all.npz", people=24)


def labels_of(path: Path) -> tuple[np.ndarray, list[str]]:
    loaded = load_embeddings(path)
    return loaded.vectors, [name.split("/")[0] for name in loaded.names]


def test_half_of_the_people_are_unknown(file: Path, tmp_path: Path) -> None:
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"]
    result = run("evaluate", "--open-set", file, *files)
    vectors, labels = labels_of(file)
    items = [Item(*name.split("/"), name) for name in load_embeddings(file).names]
    unknown = draw_people(labels, 0.5)
    division = divide(items, unknown)
    people = np.array(labels)
    sides = [division.probe, division.gallery]
    expected = open_set(*(vectors[side] for side in sides), *(people[side] for side in sides))
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["evaluated"] == {"all": expected.document()}

    lines = result.stdout.splitlines()
    assert lines[0] == (
        "open set, euclidean distance: 12 people enrolled with 48 sequences; "
        "48 probes of 12 of them, 48 probes of 12 unknown"
    )
    point = expected.identification.points[2]
    assert f"{100 * point.true_accept:.1f} ({100 * point.true_accept_interval.low:.1f} to" in lines[3]
    assert lines[3].startswith("all, identification")
    assert lines[4].split() == ["threshold", "-", "-", f"{point.threshold:.5g}"]
    assert "A false-positive identification rate of 0.1 % and 1 % cannot be told from 48 probes" in result.stdout
    assert f"12 people are not enrolled: {sorted(unknown)[0]}" in result.stdout

    with (tmp_path / "out.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 1 + 2 * (3 + 1)
    (row,) = [r for r in rows if (r["kind"], r["asked_percent"]) == ("identification", "10")]
    assert float(row["percent"]) == 100 * point.true_accept
    assert float(row["threshold"]) == point.threshold
    assert float(row["high"]) == 100 * point.true_accept_interval.high
    (empty,) = [r for r in rows if (r["kind"], r["asked_percent"]) == ("identification", "1")]
    assert empty["percent"] == empty["threshold"] == ""


def test_a_gallery_of_its_own_and_people_of_a_file(file: Path, tmp_path: Path) -> None:
    everybody = load_embeddings(file)
    enrolled = [i for i, name in enumerate(everybody.names) if name < "010" and "nm-01" in name]
    probes = [i for i in range(len(everybody.names)) if i not in enrolled]
    for name, rows in (("gallery", enrolled), ("probes", probes)):
        names, vectors = tuple(everybody.names[i] for i in rows), everybody.vectors[rows]
        side = Embeddings(vectors, names, np.full(len(rows), 30), "casia-b", "sha256:0", "0.1.0")
        save_embeddings(tmp_path / f"{name}.npz", side)
    sides = ["--gallery", tmp_path / "gallery.npz", tmp_path / "probes.npz"]
    text = run("evaluate", "--open-set", *sides).stdout
    assert "10 people enrolled with 10 sequences; 70 probes of 10 of them, 112 probes of 14 unknown" in text
    (tmp_path / "names.txt").write_text("000\n003\n")
    text = run("evaluate", "--open-set", *sides, "--unknown", tmp_path / "names.txt").stdout
    assert "8 people enrolled with 8 sequences; 56 probes of 8 of them, 126 probes of 16 unknown" in text
    assert "2 people are not enrolled: 000, 003." in text


def test_the_gallery_of_a_protocol(tmp_path: Path) -> None:
    file = embedded(tmp_path / "views.npz", people=8, views=2)
    text = run("evaluate", "--open-set", "--protocol", "casia-b", file, "--unknown", "0.25").stdout
    # nm-01 to nm-04 are the gallery; nm-05, nm-06, bg-01 and cl-01 the probes of everybody; from two views each.
    assert "6 people enrolled with 48 sequences; 48 probes of 6 of them, 16 probes of 2 unknown" in text
    assert "Gallery and probes are those of casia-b; sequences of the same view are compared, too." in text


def test_networks_beside_each_other(file: Path, tmp_path: Path) -> None:
    other = embedded(tmp_path / "other.npz", people=30, seed=1, weights="sha256:1")
    run("evaluate", "--open-set", file, "--beside", other, "--json", tmp_path / "out.json", "--metric", "cosine")
    found = json.loads((tmp_path / "out.json").read_text())["evaluated"]
    assert list(found) == ["all", "other"]
    assert found["all"]["counts"] == found["other"]["counts"]
    assert found["all"]["rank1"] != found["other"]["rank1"]
    assert found["other"]["metric"] == "cosine"


@pytest.mark.slow
def test_data_beside_the_gait_energy_image(tmp_path: Path) -> None:
    clips = {}
    for person in range(4):
        for take in range(1, 5):
            folder = tmp_path / "data" / f"{person:03d}" / f"nm-0{take}" / "090"
            folder.mkdir(parents=True)
            clips[f"{person:03d}/{take}"] = walker(person, 8, start=3 * take)
            np.save(folder / "090.npy", clips[f"{person:03d}/{take}"])
    out = tmp_path / "out.json"
    result = run("evaluate", "--open-set", tmp_path / "data", "--baseline", "gei", "--max-frames", "6", "--json", out)
    document = json.loads(out.read_text())
    assert list(document["evaluated"]) == ["walkers", "gait-energy image"]
    unknown = draw_people([f"{person:03d}" for person in range(4)], 0.5)
    names = [name for name in clips if name[:3] not in unknown and name[4] in "12"]
    probes = [name for name in clips if name[4] in "34"]
    sides = [np.stack([gait_energy_image(clips[name][:6]) for name in each]) for each in (probes, names)]
    expected = open_set(*sides, [name[:3] for name in probes], [name[:3] for name in names])
    assert document["evaluated"]["gait-energy image"] == expected.document()
    assert "trained on rendered walkers alone" in result.stderr


@pytest.mark.slow
def test_pictures(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [plot]")
    run("evaluate", "--open-set", file, "--plot", tmp_path / "pictures")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        f"{curve}-{kind}.png" for curve in ("roc", "det") for kind in ("identification", "verification")
    }
    run("evaluate", "--open-set", file, "--plot", tmp_path / "all.svg")
    assert (tmp_path / "all.svg").read_text().count("false match rate") >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Missing option '--protocol': expected one of casia-b, oumvlp, gait3d, "),
        (["--unknown", "0.5", "--protocol", "casia-b"], "expected --open-set beside --unknown"),
        (["--open-set", "--unknown", "2"], "--unknown: expected a share between 0 and 1; got 2"),
        (["--open-set", "--unknown", "half"], "expected a share such as 0.5, or a file of names; got 'half'"),
        (["--open-set", "--baseline", "gei"], "--baseline needs silhouettes"),
        (["--open-set", "--cross-view", "--protocol", "casia-b"], "cannot be combined with --cross-view"),
        (["--open-set", "--protocol", "grew", "--csv", "out.csv"], "--protocol grew"),
        (["--open-set", "--protocol", "gait3d"], "gait3d needs the list of its probes"),
        (["--open-set", "--probes", "names.txt"], "--probes is for gait3d; got no --protocol"),
    ],
)
def test_wrong_options(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("001-nm-01-090\n")
    assert message in " ".join(run("evaluate", file, *options, exit_code=2).stderr.split())


def test_what_cannot_be_evaluated(file: Path, tmp_path: Path) -> None:
    same = run("evaluate", "--open-set", file, "--gallery", file, exit_code=1).stderr
    assert "Error: expected every sequence once" in same
    one = embedded(tmp_path / "one.npz", people=1)
    assert (
        "needs 2 people or more, known and unknown; got 000" in run("evaluate", "--open-set", one, exit_code=1).stderr
    )
    few = embedded(tmp_path / "few.npz", people=3)
    assert run("evaluate", "--open-set", few).stdout.startswith("open set, euclidean distance: 1 person enrolled with")
    missing = run("evaluate", "--open-set", file, "--beside", few, exit_code=1).stderr
    assert "few.npz: expected embeddings of all 144 sequences; 128 are missing: 003/" in missing
    strangers = embedded(tmp_path / "strangers.npz", people=3, prefix="s")
    nobody = run("evaluate", "--open-set", strangers, "--gallery", few, exit_code=1).stderr
    assert (
        "expected probes of people of the gallery, got none: the gallery holds 3 people; the probes show s000" in nobody
    )
    known = run("evaluate", "--open-set", few, "--unknown", tmp_path / "names.txt", exit_code=2).stderr
    assert "expected a share such as 0.5, or a file of names" in known
    (tmp_path / "names.txt").write_text("[]")
    assert (
        "expected names of people"
        in run("evaluate", "--open-set", few, "--unknown", tmp_path / "names.txt", exit_code=1).stderr
    )
    (tmp_path / "names.txt").write_text("000\n001\n002\n")
    everybody = run("evaluate", "--open-set", few, "--unknown", tmp_path / "names.txt", exit_code=1).stderr
    assert "all 3 people of the data are to be unknown: expected some to be enrolled" in everybody
