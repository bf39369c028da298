"""`hstl-fast identify` with a gallery of people: names and nobody, what is written, and what is refused."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hstl_fast import checkpoints
from hstl_fast.evaluation import load_embeddings, save_embeddings
from tests.cli.helpers import run, walker
from tests.helpers.filmed import film
from tests.helpers.tiny import tiny_model

pytest.importorskip("sqlalchemy")
PEOPLE = ("ann", "bo", "cyd")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery `people.db` of three people, made with `weights.pt`, and walks of these and of a fourth."""
    folder = tmp_path_factory.mktemp("identify")
    checkpoints.save_checkpoint(folder / "weights.pt", tiny_model())
    for number, name in enumerate((*PEOPLE, "dan")):
        np.save(folder / f"{name}-1.npy", walker(number, 32))
        np.save(folder / f"{name}-2.npy", walker(number, 30, start=5))
    for name in PEOPLE:
        run("enroll", name, folder / f"{name}-1.npy", "--gallery", folder / "people.db", *network(folder))
    return folder


def network(folder: Path) -> list[object]:
    return ["--checkpoint", folder / "weights.pt"]


def asked(folder: Path, *probes: str, gallery: str = "people.db") -> list[object]:
    options = [argument for probe in probes for argument in ("--probe", folder / probe)]
    return ["identify", "--gallery", folder / gallery, *options]


def test_names_people_and_says_nobody(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    probes = ("ann-2.npy", "bo-2.npy", "dan-2.npy")
    result = run(*asked(folder, *probes), *network(folder), "--json", out)
    assert "3 probes: 3 named, 0 nobody\nno threshold: the nearest person is always named" in result.stdout
    assert "`hstl-fast gallery threshold` shows" in result.stdout  # a small gallery cannot tell a rate of 1 %
    answers = json.loads(out.read_text())["probes"]
    distances = [answer["matches"][0]["distance"] for answer in answers]
    assert [answer["name"] for answer in answers][:2] == ["ann", "bo"]
    between = (max(distances[:2]) + distances[2]) / 2
    assert distances[2] > max(distances[:2])
    files = ["--json", out, "--csv", tmp_path / "all.csv"]
    result = run(*asked(folder, *probes), *network(folder), "--threshold", between, "--top", 2, *files)
    assert "3 probes: 2 named, 1 nobody" in result.stdout
    assert f"threshold: {between:.6f}" in result.stdout
    document = json.loads(out.read_text())
    assert [(answer["probe"], answer["name"]) for answer in document["probes"]] == [
        ("ann-2", "ann"),
        ("bo-2", "bo"),
        ("dan-2", None),
    ]
    assert (document["threshold"], document["false_accept_rate"]) == (between, None)
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["ann", "ann", "bo", "bo", "", ""]
    flat = [(a["probe"], str(m["rank"]), m["person"]) for a in document["probes"] for m in a["matches"]]
    assert [(row["probe"], row["rank"], row["person"]) for row in rows] == flat
    lines = [line.split() for line in result.stdout.splitlines()[1:7]]
    assert [lines[0][:3], lines[4][:2]] == [["ann-2", "ann", "ann"], ["dan-2", "nobody"]]


def test_a_probe_that_is_enrolled_is_pointed_out(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "bo-1.npy", tmp_path / "other name.npy")
    out = tmp_path / "all.json"
    probes = ["--probe", folder / "ann-2.npy", "--probe", tmp_path / "other name.npy"]
    result = run("identify", "--gallery", folder / "people.db", *probes, *network(folder), "--json", out)
    assert "themselves, by their silhouettes: 1, such as other name, which is recording 2 of bo;" in result.stdout
    assert [answer["is_recording"] for answer in json.loads(out.read_text())["probes"]] == [None, 2]
    documented = re.findall(r"`(\w+)`", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert set(json.loads(out.read_text())["probes"][0]) <= set(documented)
    assert "themselves" not in run(*asked(folder, "ann-2.npy"), *network(folder)).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_of_files_that_are_no_utf_8(folder: Path, tmp_path: Path) -> None:
    odd = [tmp_path / os.fsdecode(name) for name in (b"one\xff.npy", b"two\xff.npy", b"bad\xff.npy")]
    for path, source in zip(odd, ("ann-2", "ann-1", "ann-1"), strict=True):
        shutil.copy(folder / f"{source}.npy", path)
    odd[2].write_bytes(b"no silhouettes")
    gallery = tmp_path / os.fsdecode(b"people\xff.db")
    run("enroll", "Ann", odd[0], "--gallery", gallery, *network(folder))
    out, table = tmp_path / "a.json", tmp_path / "a.csv"
    files = ["--json", out, "--csv", table]
    probes = ["--probe", odd[1], "--probe", odd[2]]
    result = run("identify", "--gallery", gallery, *probes, *network(folder), *files, exit_code=1)
    assert "two?" in result.stdout
    assert "bad\\udcff.npy" in result.stderr
    (answer,) = json.loads(out.read_text())["probes"]
    assert (answer["probe"], answer["matches"][0]["source"]) == ("two?", "one?")
    assert "\ntwo?,Ann," in table.read_text()
    result = run("identify", "--gallery", odd[0], "--probe", odd[1], *network(folder), *files)
    assert "two\\udcff" in table.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_standard_output_is_named(folder: Path) -> None:
    command = [sys.executable, "-m", "hstl_fast", *map(str, [*asked(folder, "ann-2.npy"), *network(folder)])]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "Error: standard output: No space left on device"


def test_distances_are_those_of_the_embeddings(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    run(*asked(folder, "cyd-2.npy"), *network(folder), "--json", out)
    model = tiny_model()
    clips = [np.load(folder / f"{name}.npy") for name in ("ann-1", "bo-1", "cyd-1", "cyd-2")]
    *known, probe = (model.double().embed([torch.from_numpy(clip).double() / 255])[0] for clip in clips)
    expected = {name: float((each - probe).norm(dim=1).mean()) for name, each in zip(PEOPLE, known, strict=True)}
    (answer,) = json.loads(out.read_text())["probes"]
    found = {match["person"]: match["distance"] for match in answer["matches"]}
    # The network computes in float32 with some 400 additions at most for a value.
    assert found == pytest.approx(expected, abs=400 * 2**-24 * max(float(each.abs().max()) for each in known) * 10)
    assert list(found) == sorted(expected, key=expected.__getitem__)
    first, second = answer["matches"][0]["distance"], answer["matches"][1]["distance"]
    assert answer["margin"] == second - first


def test_the_threshold_of_a_rate_is_found_before_probes_are_read(folder: Path, tmp_path: Path) -> None:
    asking = [*asked(folder, "ann-2.npy"), *network(folder), "--json", tmp_path / "o.json"]
    result = run(*asking, "--false-accept-rate", 0.01, exit_code=1)
    assert (
        "a false-accept rate of 1 % cannot be told from 3 recordings of 3 people: the smallest is 25 %" in result.stderr
    )
    assert "layout" not in result.stderr, "the probe was opened"
    result = run(*asking, "--false-accept-rate", 0.25)
    document = json.loads((tmp_path / "o.json").read_text())
    chosen = document["chosen_threshold"]
    assert (document["threshold"], document["false_accept_rate"]) == (chosen["distance"], 0.25)
    low, high = (f"{100 * end:.3g}" for end in chosen["false_accept_interval"])
    said = f"at which 25 % of strangers would be named (false-accept rate; interval of 95 %: {low} to {high} %)"
    assert f"threshold: {chosen['distance']:.6f}, {said}" in result.stdout


def test_answers_are_explained(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    plain = run(*asked(folder, "ann-2.npy", "bo-2.npy"), *network(folder), "--json", out).stdout
    unexplained = json.loads(out.read_text())["probes"]
    result = run(*asked(folder, "ann-2.npy", "bo-2.npy"), *network(folder), "--json", out, "--explain")
    assert result.stdout.startswith(plain)
    lines = result.stdout.removeprefix(plain).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["ann-2", "bo-2"]
    for line, answer in zip(lines, json.loads(out.read_text())["probes"], strict=True):
        explanation = answer.pop("explanation")
        first, second = answer["matches"][:2]
        parts = sum(len(level["regions"]) for level in explanation["levels"])
        agreeing = sum(level["agreeing"] for level in explanation["levels"])
        assert agreeing / parts == pytest.approx(first["agreement"])
        assert f"{agreeing} of {parts} parts are nearer to {first['person']}" in line
        assert f"{second['person']} is {answer['margin']:.4g}" in line
        assert answer == unexplained.pop(0)


def test_embedding_files_are_probes_too(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "probes.npz"
    run("embed", folder / "ann-2.npy", folder / "dan-2.npy", "-o", file, *network(folder))
    result = run("identify", "--gallery", folder / "people.db", "--probe", file)
    assert [line.split()[0] for line in result.stdout.splitlines()[1:3]] == ["ann-2", "dan-2"]
    assert result.stdout.splitlines()[1].split()[1] == "ann"
    result = run("identify", "--gallery", folder / "people.db", "--probe", file, "--strict", exit_code=2)
    assert "--strict: expected data to be embedded; all probes hold embeddings" in result.stderr
    embeddings = load_embeddings(file)
    save_embeddings(file, type(embeddings)(**{**vars(embeddings), "weights": "sha256:0"}))
    result = run("identify", "--gallery", folder / "people.db", "--probe", file, exit_code=1)
    assert "embeddings of two networks cannot be compared" in result.stderr


def test_a_probe_with_too_few_frames_stops_no_other(folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.npy"
    np.save(short, walker(1, 12))
    result = run(*asked(folder, "ann-2.npy"), "--probe", short, *network(folder), exit_code=1)
    assert "1 probe: 1 named" in result.stdout
    assert "1 failed:\n  short: expected a walk of at least 30 frames, got 12" in result.stderr


def test_a_video_with_nobody_stops_no_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = film(monkeypatch)
    empty, door = write(tmp_path / "empty.mp4"), write(tmp_path / "door.mp4", (0, 31, 0), (2, 40, 2))
    probes = [argument for video in (empty, door) for argument in ("--probe", video)]
    out = tmp_path / "o.json"
    asking = ["identify", "--gallery", folder / "people.db", *probes, *network(folder), "--json", out]
    result = run(*asking, exit_code=1)
    assert f"1 failed:\n  {empty}: no track of 30 frames or more" in result.stderr
    document = json.loads(out.read_text())
    assert [(answer["probe"], answer["name"]) for answer in document["probes"]] == [
        ("door.mp4-track01", "ann"),
        ("door.mp4-track02", "cyd"),
    ]
    assert document["failures"] == [f"{empty}: no track of 30 frames or more (longest 0)"]


def test_an_empty_or_missing_gallery_is_said(folder: Path, tmp_path: Path) -> None:
    people = tmp_path / "people.db"
    probe = ["--probe", folder / "ann-2.npy"]
    result = run("identify", "--gallery", people, *probe, exit_code=1)
    assert "there is no such gallery; `hstl-fast enroll` makes one" in result.stderr
    assert not people.exists()
    run("enroll", "ann", folder / "ann-1.npy", "--gallery", people)
    run("gallery", "remove", "ann", "--gallery", people, "--yes")
    result = run("identify", "--gallery", people, *probe, exit_code=1)
    assert "nobody is enrolled; `hstl-fast enroll NAME VIDEO`" in result.stderr
    result = run("identify", "--gallery", tmp_path / "none.npz", *probe, exit_code=2)
    assert "does not exist" in result.stderr


def test_another_network_is_refused(folder: Path) -> None:
    result = run(*asked(folder, "ann-2.npy"), exit_code=1)
    assert "pass it as --checkpoint" in result.stderr
    result = run(*asked(folder, "ann-2.npy"), "--seed", 1, exit_code=1)
    assert "embeddings of two networks cannot be compared" in result.stderr


def test_options_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    people = asked(folder, "ann-2.npy")
    result = run(*people, "--metric", "cosine", exit_code=2)
    assert "--metric: expected euclidean with a gallery of people, got cosine" in result.stderr
    result = run(*people, "--threshold", 1, "--false-accept-rate", 0.1, exit_code=2)
    assert "--threshold, --false-accept-rate: expected one of them, got both" in result.stderr
    sequences = ["identify", "--gallery", folder / "ann-1.npy", "--probe", folder / "ann-2.npy"]
    result = run(*sequences, "--threshold", 1, "--min-frames", 5, exit_code=2)
    assert "--threshold, --min-frames: expected a gallery of people beside it, got" in result.stderr
    result = run(*sequences, "--probe", folder / "bo-2.npy", exit_code=2)
    assert "--probe: expected one where the gallery is" in result.stderr
