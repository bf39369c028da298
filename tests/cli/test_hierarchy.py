"""`hstl-fast hierarchy`: what it prints, what it writes, and what it refuses."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from hstl_fast import checkpoints
from hstl_fast.hierarchy import Hierarchy
from tests.cli.helpers import run, walker
from tests.helpers.networks import narrow_model

pytest.importorskip("sklearn", reason="needs the extra [hierarchy]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people from two views, in OpenGait's layout, and a partition."""
    root = tmp_path_factory.mktemp("hierarchy")
    for person in range(4):
        for view in ("000", "090"):
            folder = root / "data" / f"{person + 1:03}" / "nm-01" / view
            folder.mkdir(parents=True)
            (folder / f"{view}.pkl").write_bytes(pickle.dumps(walker(person, 40 + person)))
    (root / "people.json").write_text(json.dumps({"TRAIN_SET": ["001", "002"], "TEST_SET": ["003", "004"]}))
    return root


def test_finds_legs_that_swing(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [hierarchy]")
    output, picture = tmp_path / "hierarchy.json", tmp_path / "hierarchy.svg"
    result = run("hierarchy", data / "data", "-o", output, "--picture", picture, "--bootstrap", "20")
    assert result.stderr == f"{data}/data: 4 people, 1 type, 2 views, 8 sequences (layout opengait)\n"
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "motion features of 8 strips, ward linkage, euclidean distance",
        "measured on 8 sequences, 332 frames",
    ]
    tree = Hierarchy.load(output)
    (upper, lower), fine = tree.splits()
    assert upper in (5, 6)
    assert f"2 regions: {[upper, lower]}, boundaries at {upper / 8:.3f}, in 100% of the resamples" in lines
    assert "(20 resamples of the sequences)" in lines
    assert any(line.startswith("casia-b: [5, 3] -> [1, 4, 2, 1] in eighths; the tree's cuts") for line in lines)
    assert (
        "This is constrained clustering of these features. It is not the paper's method, whose features, distance and "
        "linkage were not published."
    ) in lines
    assert lines[-1] == f"{output}: splits {[[upper, lower], fine]}"
    assert json.loads(output.read_text())["splits"] == [[upper, lower], fine]
    assert (tree.sequences, tree.frames, tree.bootstrap is not None) == (8, 332, True)
    assert picture.read_bytes().startswith(b"<?xml")
    assert sum(line[:1].isdigit() and " to " in line for line in lines) == 8


def test_measures_a_part_by_other_features(data: Path, tmp_path: Path) -> None:
    options = ("--features", "coherence", "--linkage", "average", "--metric", "cosine", "--clusters", "3,5,6")
    partition = ("--partition", data / "people.json", "--part", "train", "--resample", "people")
    result = run("hierarchy", data / "data", "-o", tmp_path / "h.json", *options, *partition)
    assert "coherence features of 8 strips, average linkage, cosine distance\nmeasured on 4 sequences" in result.stdout
    tree = Hierarchy.load(tmp_path / "h.json")
    assert [len(split) for split in tree.splits()] == [3, 5, 6]
    assert tree.bootstrap is not None
    assert tree.bootstrap.unit == "people"
    again = run("hierarchy", data / "data", "-o", tmp_path / "again.json", *options, *partition)
    assert again.exit_code == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "h.json").read_bytes()
    none = run("hierarchy", data / "data", "--strips", "4", "--clusters", "2", "--bootstrap", "0")
    assert "resamples" not in none.stdout
    assert none.stdout.count("the tree has fewer strips than that") == 2


def test_measures_the_rows_of_a_network(data: Path, tmp_path: Path) -> None:
    model = narrow_model("casia-b", divisor=16)
    checkpoints.save_checkpoint(tmp_path / "narrow.pt", model)
    options = ("--features", "network", "--checkpoint", tmp_path / "narrow.pt", "--stage", "1")
    reference = run("hierarchy", data / "data", *options, "--backend", "reference")
    assert "network features of 8 strips, ward linkage" in reference.stdout
    wrong = run("hierarchy", data / "data", *options, "--stage", "3", exit_code=1)
    assert "stage must be 0 (the stem) to 2, got 3" in wrong.stderr


def test_what_cannot_be_read_is_listed(data: Path, tmp_path: Path) -> None:
    for name, content in {"a": pickle.dumps(walker(0, 20)), "b": b"none", "c": pickle.dumps(walker(1, 6))}.items():
        folder = tmp_path / "data" / name / "nm-01" / "090"
        folder.mkdir(parents=True)
        (folder / "090.pkl").write_bytes(content)
    result = run("hierarchy", tmp_path / "data", "-o", tmp_path / "h.json", exit_code=1)
    assert "measured on 1 sequence, 20 frames" in result.stdout
    assert "1 x sequence that cannot be read" in result.stderr
    assert "1 x too few frames with a body" in result.stderr
    assert result.stderr.rstrip().splitlines()[-2] == "1 failed:"
    assert "b/nm-01/090" in result.stderr.rstrip().splitlines()[-1]
    (tmp_path / "h.json").unlink()
    run("hierarchy", tmp_path / "data", "-o", tmp_path / "h.json", "--strict", exit_code=1)
    assert not (tmp_path / "h.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clusters", "2,9"], "clusters must be at most the 8 strips, got [2, 9]"),
        (["--clusters", "4,2"], "clusters must increase, got [4, 2]"),
        (["--clusters", "two"], "expected numbers of regions such as 2,4; got 'two'"),
        (["--strips", "7"], "at least 2 strips and a divisor of 64 rows, got 7"),
        (["--strips", "1"], "1 is not in the range 2<=x<=64"),
        (["--features", "motoin"], "did you mean 'motion'"),
        (["--metric", "cosine"], "metric must be 'euclidean' with Ward's linkage, got 'cosine'"),
        (["--features", "network"], "--features network needs the network: name it with --checkpoint"),
        (["--stage", "1"], "--stage and --backend are for --features network; got --features motion"),
        (["--picture", "tree.gif"], "expected a name that ends in .png, .svg, .pdf; got 'tree.gif'"),
        (["--picture", "nowhere/tree.png"], "the folder 'nowhere' does not exist"),
        (["-o", "tree.txt"], "expected the name of a file that ends in .json"),
    ],
)
def test_refuses_before_it_reads(options: list[str], message: str, tmp_path: Path) -> None:
    result = run("hierarchy", tmp_path / "absent", *options, exit_code=2)
    assert message in result.stderr


def test_refuses_a_checkpoint_for_silhouettes(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"")
    result = run("hierarchy", tmp_path, "--checkpoint", tmp_path / "x.pt", exit_code=2)
    assert "--checkpoint is for --features network; got --features motion" in result.stderr


def test_says_why_nothing_was_measured(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", walker(0, 6))
    result = run("hierarchy", tmp_path / "short.npy", exit_code=1)
    assert "expected sequences to measure strips on, got none; the last, " in result.stderr
    assert "too few frames with a body (6, expected at least 8)" in result.stderr
