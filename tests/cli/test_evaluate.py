"""`hstl-fast evaluate`: numbers for a person and as files, the choice of the test set, and what is refused."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.cli import evaluation_data
from hstl_fast.cli.embedding import Settings
from hstl_fast.cli.found import FoundOptions
from hstl_fast.data import Item, Sequences
from hstl_fast.evaluation import Embeddings, division, evaluate, save_embeddings
from hstl_fast.evaluation.protocols import Request
from tests.cli.helpers import run, walker
from tests.golden import recipe

ARRAYS = ("embeddings", "labels", "types", "views")
TYPES = [f"nm-0{n}" for n in range(1, 7)] + [f"{condition}-0{n}" for condition in ("bg", "cl") for n in (1, 2)]
VIEWS = ["000", "090"]


def write(path: Path, vectors: np.ndarray, names: list[str], weights: str = "sha256:0") -> Path:
    save_embeddings(path, Embeddings(vectors, tuple(names), np.full(len(names), 30), "casia-b", weights, "0.1.0"))
    return path


def golden_file(path: Path, protocol: str) -> tuple[Path, list[np.ndarray]]:
    golden = recipe.load("evaluation")
    arrays = [golden[f"{protocol}/{name}"] for name in ARRAYS]
    return write(path, arrays[0], ["/".join(each) for each in zip(*arrays[1:], strict=True)]), arrays


def small_file(path: Path, people: list[str], weights: str = "sha256:0", prefix: str = "") -> Path:
    """Embeddings of the recordings of CASIA-B, in two views, that are nearest to those of the same person."""
    names = [f"{prefix}{person}/{type_}/{view}" for person in people for type_ in TYPES for view in VIEWS]
    noise = np.random.default_rng(0).normal(size=(len(names), 2, 3)) / 100
    places = [float(people.index(name.removeprefix(prefix).split("/")[0])) for name in names]
    return write(path, (noise + np.array(places)[:, None, None]).astype(np.float32), names, weights)


def test_the_documentation_shows_what_is_printed(tmp_path: Path) -> None:
    path, _ = golden_file(tmp_path / "g.npz", "casia-b")
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert run("evaluate", "--protocol", "casia-b", path).stdout == shown


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_casia_b_for_a_person_and_as_files(tmp_path: Path) -> None:
    path, arrays = golden_file(tmp_path / "g.npz", "casia-b")
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"]
    result = run("evaluate", "--protocol", "casia-b", path, *files)
    expected = evaluate("casia-b", *arrays)
    assert json.loads((tmp_path / "out.json").read_text()) == expected

    lines = result.stdout.splitlines()
    assert lines[0] == (
        "casia-b, euclidean distance: 12 people, 744 probes, 496 gallery sequences, 0 probes without a partner"
    )
    assert lines[2].split() == ["%", *expected["views"], "mean", "published"]
    assert lines[3].split()[:2] == ["NM", "rank-1"]
    row = expected["tables"]["NM"][0]
    assert lines[3].split()[2] == f"{sum(row[1:]) / 10:.1f}"
    assert lines[3].split()[-2:] == [f"{expected['results']['NM']['rank1']:.2f}", "98.1"]
    assert lines[6].split() == ["mean", "rank-1", f"{expected['results']['mean']['rank1']:.2f}", "94.3"]
    assert "published: Wang et al.," in result.stdout
    assert "The published test set has 50 people, these data 12: do not compare the columns." in result.stdout
    assert "untrained" not in result.stdout

    rows = rows_of(tmp_path / "out.csv")
    assert list(rows[0]) == ["result", "probe_view", "gallery_view", "measure", "percent"]
    cells = {(row["result"], row["probe_view"], row["gallery_view"]): row["percent"] for row in rows}
    assert len(cells) == len(rows) == 4 + 3 * 11 * 11
    assert float(cells["CL", "036", "180"]) == expected["tables"]["CL"][2][10]
    assert float(cells["mean", "", ""]) == expected["results"]["mean"]["rank1"]


def test_cross_view(tmp_path: Path) -> None:
    path, arrays = golden_file(tmp_path / "g.npz", "casia-b")
    result = run("evaluate", "--protocol", "casia-b", path, "--cross-view", "--csv", tmp_path / "out.csv")
    expected = evaluate("casia-b", *arrays, cross_view=True)
    assert result.stdout.startswith("casia-b, euclidean distance, cross-view: 12 people, ")
    assert f"{expected['results']['BG']['mAP']:.2f}" in result.stdout
    assert "published" not in result.stdout
    (row,) = [r for r in rows_of(tmp_path / "out.csv") if list(r.values())[:4] == ["NM", "018", "", "mAP"]]
    assert float(row["percent"]) == expected["tables"]["NM"]["mAP"][1]


def test_oumvlp_gives_both_numbers(tmp_path: Path) -> None:
    path, arrays = golden_file(tmp_path / "g.npz", "oumvlp")
    result = run("evaluate", "--protocol", "oumvlp", path, "--metric", "cosine")
    expected = evaluate("oumvlp", *arrays, metric="cosine")["results"]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[3][-2:] == [f"{expected['all_probes']['rank1']:.2f}", "92.4"]
    assert lines[4][-1] == f"{expected['with_partner']['rank1']:.2f}"
    assert "In 785 of 6526 comparisons of a probe with the gallery of another view" in result.stdout


@pytest.mark.parametrize("form", ["list", "text", "partition"])
def test_gait3d_takes_its_probes_from_a_file(tmp_path: Path, form: str) -> None:
    path, arrays = golden_file(tmp_path / "g.npz", "gait3d")
    probes = [str(name) for name in recipe.load("evaluation")["gait3d/probes"]]
    people = sorted(set(arrays[1].tolist()))
    contents = {
        "list": json.dumps(probes),
        "text": "\n".join(probes) + "\n\n",
        "partition": json.dumps({"TRAIN_SET": [], "TEST_SET": people, "PROBE_SET": probes}),
    }
    (tmp_path / "probes").write_text(contents[form])
    options = ["--partition" if form == "partition" else "--probes", tmp_path / "probes"]
    run("evaluate", "--protocol", "gait3d", path, *options, "--rerank", "--json", tmp_path / "out.json")
    expected = evaluate("gait3d", *arrays, probes=probes, rerank=True)
    assert json.loads((tmp_path / "out.json").read_text()) == expected


def test_grew_writes_the_competitions_file(tmp_path: Path) -> None:
    path, _ = golden_file(tmp_path / "g.npz", "grew-submission")
    golden = recipe.load("evaluation")
    result = run("evaluate", "--protocol", "grew", path, "--csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == golden["grew-submission/header"].tolist()
    assert rows == golden["grew-submission/rows"].tolist()
    assert "published: rank-1 62.7 % by the competition's server." in result.stdout
    assert "25 rows for the competition" in result.stdout


def test_grew_without_a_file_is_refused(tmp_path: Path) -> None:
    path, _ = golden_file(tmp_path / "g.npz", "grew-submission")
    assert "name it with --csv" in run("evaluate", "--protocol", "grew", path, exit_code=2).stderr
    options = ["--csv", tmp_path / "out.csv", "--plot", tmp_path / "out.png"]
    pytest.importorskip("matplotlib", reason="needs the extra [plot]")
    assert "nothing to draw" in run("evaluate", "--protocol", "grew", path, *options, exit_code=2).stderr
    assert not (tmp_path / "out.csv").exists()


def test_pictures_go_into_a_folder_or_one_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [plot]")
    path = small_file(tmp_path / "e.npz", ["075", "076", "077"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("stay")
    run("evaluate", "--protocol", "casia-b", path, "--plot", tmp_path / "mine")
    names = {file.name for file in (tmp_path / "mine").iterdir()}
    assert names == {"notes.txt", "cmc.png", "rank1-NM.png", "rank1-BG.png", "rank1-CL.png"}
    run("evaluate", "--protocol", "casia-b", path, "--cross-view", "--plot", tmp_path / "all.svg")
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")


def test_places_that_cannot_hold_pictures_are_refused_before_the_work(tmp_path: Path) -> None:
    path = small_file(tmp_path / "e.npz", ["075", "076"])
    for place, words in (
        (path, "expected a folder, or a file that ends in"),
        (tmp_path / "no" / "x", "does not exist"),
        *([(Path("/proc"), "cannot be written")] if Path("/proc").is_dir() else []),
    ):
        result = run("evaluate", "--protocol", "casia-b", path, "--plot", place, exit_code=2)
        assert words in " ".join(result.stderr.split())
        assert not result.stdout


def test_everybody_one_person_gives_no_rank_1_but_the_reason(tmp_path: Path) -> None:
    """A root one level too high: every name begins with the name of the data set."""
    path = small_file(tmp_path / "e.npz", ["075"])
    result = run("evaluate", "--protocol", "casia-b", path, "--json", tmp_path / "out.json")
    assert "rank-1" not in result.stdout
    assert "100" not in result.stdout
    assert "All probes and all of the gallery show one person, 075: any ranking is right" in result.stdout
    assert json.loads((tmp_path / "out.json").read_text())["results"]["NM"] == {"rank1": None}
    high = small_file(tmp_path / "high.npz", ["075", "076"], prefix="CASIA-B/")
    message = run("evaluate", "--protocol", "casia-b", high, exit_code=1).stderr
    assert "the data have the types 075, 076" in message


def test_untrained_weights_are_named_beside_the_numbers(tmp_path: Path) -> None:
    path = small_file(tmp_path / "e.npz", ["075", "076"], weights="seed:2023")
    result = run("evaluate", "--protocol", "casia-b", path)
    assert "The network is untrained (seed:2023): these numbers say little" in result.stdout


def counts(path: Path, tmp_path: Path, *options: object) -> tuple[dict[str, int], str]:
    result = run("evaluate", "--protocol", "casia-b", path, "--json", tmp_path / "out.json", *options)
    return json.loads((tmp_path / "out.json").read_text())["counts"], result.stdout


def test_people_for_training_are_left_out_and_counted(tmp_path: Path) -> None:
    path = small_file(tmp_path / "e.npz", ["001", "074", "075", "124"])
    found, text = counts(path, tmp_path)
    assert found["people"] == 2
    sentence = "40 sequences of 2 people are evaluated; left out are 40 sequences, among them all of 2 people."
    assert f"Test set by the published rule: {sentence}" in text

    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": ["075"], "TEST_SET": ["001", "074", "300"]}))
    found, text = counts(path, tmp_path, "--partition", tmp_path / "p.json")
    assert found["people"] == 2
    assert f"Test set by the partition: {sentence}" in text
    assert "1 people in the data are in neither set of the partition: 124." in text
    assert "1 of 3 people of the partition's TEST_SET are not in the data: 300." in text


@pytest.mark.parametrize("people", [["075", "124"], ["001", "074"], ["075", "125"]])
def test_other_people_are_all_evaluated(tmp_path: Path, people: list[str]) -> None:
    found, text = counts(small_file(tmp_path / "e.npz", people), tmp_path)
    assert found["people"] == 2
    assert "left out" not in text


def test_a_partition_of_strangers_is_refused(tmp_path: Path) -> None:
    path = small_file(tmp_path / "e.npz", ["075", "076"])
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": [], "TEST_SET": ["00001"]}))
    options = ["--partition", tmp_path / "p.json", "--json", tmp_path / "out.json"]
    message = run("evaluate", "--protocol", "casia-b", path, *options, exit_code=1).stderr
    assert "none of the 1 people of the partition's TEST_SET is in the data: expected 00001; got 075, 076" in message
    assert not (tmp_path / "out.json").exists()


def test_probes_of_grew_stay_without_being_in_the_partition(tmp_path: Path) -> None:
    path, _ = golden_file(tmp_path / "g.npz", "grew-submission")
    people = [f"{n:05}" for n in range(1, 11)]
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": [], "TEST_SET": people}))
    options = ["--partition", tmp_path / "p.json", "--csv", tmp_path / "out.csv"]
    result = run("evaluate", "--protocol", "grew", path, *options)
    assert "10 people, 25 probes, 20 gallery sequences" in result.stdout


def test_several_files_are_one_set(tmp_path: Path) -> None:
    whole = small_file(tmp_path / "whole.npz", ["075", "076", "077"])
    with np.load(whole) as file:
        vectors, names = file["embeddings"], [str(name) for name in file["names"]]
    parts = [
        write(tmp_path / f"{i}.npz", vectors[some], names[some]) for i, some in enumerate((slice(25), slice(25, None)))
    ]
    outputs = [run("evaluate", "--protocol", "casia-b", *paths).stdout for paths in ([whole], parts)]
    assert outputs[0] == outputs[1]
    message = run("evaluate", "--protocol", "casia-b", whole, parts[0], exit_code=1).stderr
    assert "expected every sequence once; these are there more than once: 075/bg-01/000, " in message
    other = small_file(tmp_path / "other.npz", ["080"], weights="seed:1")
    message = run("evaluate", "--protocol", "casia-b", whole, other, exit_code=1).stderr
    assert "cannot be evaluated together" in message
    assert "the same weights" in message


def break_names(path: Path) -> tuple[Path, str]:
    return write(path, np.ones((2, 1, 1), np.float32), ["ann", "075/nm-01"]), (
        "expected sequences named label/type/view, such as 075/nm-01/090; 2 of 2 have other names: 075/nm-01, ann"
    )


def break_values(path: Path) -> tuple[Path, str]:
    whole = small_file(path, ["075", "076"])
    with np.load(whole) as file:
        arrays = dict(file)
    arrays["embeddings"][3, 0, 0] = np.nan
    np.savez(path, **arrays)
    return path, "embeddings must be finite; got NaN or infinity"


def break_labels(path: Path) -> tuple[Path, str]:
    return small_file(path, ["1", "001"]), "labels must name a person in one way; got '1' and '001', the same number"


@pytest.mark.parametrize("break_file", [break_names, break_values, break_labels])
def test_files_that_are_refused(tmp_path: Path, break_file: Callable[[Path], tuple[Path, str]]) -> None:
    path, sentence = break_file(tmp_path / "e.npz")
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"]
    result = run("evaluate", "--protocol", "casia-b", path, *files, exit_code=1)
    assert sentence in result.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["e.npz"]


@pytest.mark.parametrize("content", ["[1, 2]", '{"TEST_SET": "a"}', "nonsense"])
def test_files_that_are_no_partition(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    path = small_file(tmp_path / "e.npz", ["075", "076"])
    result = run("evaluate", "--protocol", "casia-b", path, "--partition", tmp_path / "p.json", exit_code=1)
    assert "p.json: expected" in result.stderr


def test_oumvlp_is_divided_by_its_rule_where_there_are_too_many_people() -> None:
    people = [f"{n:05}" for n in range(1, 10308)]
    items = [Item(person, "00", "000", f"{person}/00/000") for person in people]
    chosen, notes = division.choose_test_set(items, "oumvlp", None)
    assert {items[i].label for i in chosen} == {*people[1::2], "10307"}
    assert len(notes) == 1
    assert division.choose_test_set(items[:5000], "oumvlp", None) == (list(range(5000)), [])


def test_a_partition_may_name_the_gallery(tmp_path: Path) -> None:
    path, arrays = golden_file(tmp_path / "g.npz", "gait3d")
    names = ["-".join(each) for each in zip(*arrays[1:], strict=True)]
    probes = [str(name) for name in recipe.load("evaluation")["gait3d/probes"]]
    gallery = [name for name in names if name not in probes][::2]
    partition = {"TRAIN_SET": [], "TEST_SET": sorted(set(arrays[1])), "PROBE_SET": probes, "GALLERY_SET": gallery}
    (tmp_path / "p.json").write_text(json.dumps(partition))
    options = ["--partition", tmp_path / "p.json", "--json", tmp_path / "out.json"]
    run("evaluate", "--protocol", "gait3d", path, *options)
    kept = [i for i, name in enumerate(names) if name in probes or name in gallery]
    expected = evaluate("gait3d", *(array[kept] for array in arrays), probes=probes)
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert expected["counts"]["gallery"] == len(gallery)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"TEST_SET": []}', b"[1]", b"\xff\xfe\x00"])
def test_files_that_name_no_probes(tmp_path: Path, content: bytes) -> None:
    path, _ = golden_file(tmp_path / "g.npz", "gait3d")
    (tmp_path / "probes").write_bytes(content)
    result = run("evaluate", "--protocol", "gait3d", path, "--probes", tmp_path / "probes", exit_code=1)
    assert "probes: expected " in result.stderr
    assert "names" in result.stderr


def test_options_that_do_not_fit(tmp_path: Path, gallery: Path) -> None:
    path = small_file(tmp_path / "e.npz", ["075", "076"])
    for options, words in (
        (["casia-b", path, "--seed", 3, "--pattern", "*.png"], "--seed, --pattern: expected data to be embedded"),
        (["casia-b", path, gallery], "embedding files or data, not both"),
        (["gait3d", path], "gait3d needs the list of its probes: --probes FILE"),
        (["oumvlp", path, "--cross-view"], "--cross-view is for casia-b; got --protocol oumvlp"),
        (["casia-b", path, "--rerank"], "--rerank is for gait3d, grew-validation, grew; got --protocol casia-b"),
        (["casia-b", path, "--probes", path], "--probes is for gait3d; got --protocol casia-b"),
    ):
        assert words in " ".join(run("evaluate", "--protocol", *options, exit_code=2).stderr.split())
    message = run("evaluate", "--protocol", "oumvlp", path, exit_code=1).stderr
    assert "needs a gallery of the types 01; the data have the types bg-01, bg-02" in message


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Silhouettes as OpenGait lays them out."""
    for person in range(2):
        for type_, view in (("nm-01", "000"), ("nm-05", "090"), ("bg-01", "090"), ("cl-01", "090")):
            folder = tmp_path / "tree" / f"{person + 75:03}" / type_ / view
            folder.mkdir(parents=True)
            np.save(folder / f"{view}.npy", walker(person, 5, start=len(type_)))
    return tmp_path / "tree"


def test_only_the_test_set_is_embedded(tree: Path, tmp_path: Path) -> None:
    """The people for training are not read at all."""
    (tree / "075").rename(tree / "001")
    (tree / "001" / "nm-05" / "090" / "090.npy").write_bytes(b"nonsense")
    for person in ("077", "078"):
        shutil.copytree(tree / "076", tree / person)
    result = run("evaluate", "--protocol", "casia-b", tree, "--json", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["counts"]["people"] == 3
    assert "Test set by the published rule: 12 sequences of 3 people" in result.stdout


def test_missing_types_and_probes_are_named_before_the_work(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_data, "embed_sequences", None)
    message = run("evaluate", "--protocol", "gait3d", tree, exit_code=2).stderr
    assert "gait3d needs the list of its probes" in message
    message = run("evaluate", "--protocol", "casia-b", tree / "075" / "nm-01", exit_code=1).stderr
    assert "expected sequences named label/type/view, such as 075/nm-01/090; 1 of 1 have other names: 000" in message
    message = run("evaluate", "--protocol", "oumvlp", tree, exit_code=1).stderr
    assert "oumvlp needs a gallery of the types 01; the data have the types bg-01, cl-01, nm-01, nm-05" in message


def test_silhouettes_are_embedded_by_the_protocols_network(tree: Path, tmp_path: Path) -> None:
    result = run("evaluate", "--protocol", "casia-b", tree, "--json", tmp_path / "a.json")
    assert "2 people, 6 probes, 2 gallery sequences, 0 probes without a partner" in result.stdout
    assert "The network is untrained (seed:2023)" in result.stdout
    run("embed", tree, "-o", tmp_path / "e.npz", "--preset", "casia-b")
    run("evaluate", "--protocol", "casia-b", tmp_path / "e.npz", "--json", tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_people_that_only_the_partition_has_are_named_alike_for_data_and_embeddings(tree: Path, tmp_path: Path) -> None:
    run("embed", tree, "-o", tmp_path / "e.npz")
    partition = tmp_path / "p.json"
    partition.write_text('{"TRAIN_SET": [], "TEST_SET": ["075", "099"]}', encoding="utf-8")
    for path in (tree, tmp_path / "e.npz"):
        text = run("evaluate", "--protocol", "casia-b", path, "--partition", partition).stdout
        assert "1 people in the data are in neither set of the partition: 076." in text
        assert "1 of 2 people of the partition's TEST_SET are not in the data: 099." in text


def test_sequences_that_cannot_be_read_are_listed_after_the_numbers(tree: Path) -> None:
    (tree / "075" / "nm-05" / "090" / "broken.npy").write_bytes(b"nonsense")
    result = run("evaluate", "--protocol", "casia-b", tree, exit_code=1)
    assert "NM rank-1" in result.stdout
    assert "1 failed:" in result.stderr
    assert "broken.npy" in result.stderr


def test_the_protocol_chooses_the_network(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    presets = []

    def embed(network: object, sequences: Sequences, settings: Settings, _: object) -> tuple[None, list[str]]:
        presets.append(settings.preset)
        return None, ["nothing"]

    monkeypatch.setattr(evaluation_data, "embed_sequences", embed)
    monkeypatch.setattr(evaluation_data, "load_network", lambda settings: None)
    monkeypatch.setattr(division, "select_sequences", lambda *arguments: None)
    for protocol in ("oumvlp", "grew-validation", "gait3d"):
        settings, request = Settings(None, None, None, None, 9), Request(probes=("a-b-c",))
        with pytest.raises(Exception, match="nothing"):
            evaluation_data.load_test_set([tree], protocol, request, FoundOptions(), settings, [])
    assert presets == ["oumvlp", "grew", "gait3d"]
