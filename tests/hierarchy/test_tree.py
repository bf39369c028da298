"""The hierarchy's file, its matrix for SciPy, its text and picture, and the network that it gives."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hstl_fast
from hstl_fast import HSTL, PRESETS
from hstl_fast.hierarchy import (
    LINKAGES,
    Bootstrap,
    Hierarchy,
    body_hierarchy,
    compare_with_published,
    published_splits,
)
from hstl_fast.hierarchy.pictures import draw_hierarchy
from hstl_fast.hierarchy.text import describe_comparison, describe_splits, draw_text
from hstl_fast.models.config import HSTLConfig
from tests.conftest import skip_without_binary
from tests.helpers.bounds import NETWORK, distance, distance_of_norms, rounding
from tests.helpers.networks import narrow_config, walkers
from tests.hierarchy.planted import planted

CASIA_B = [[5, 3], [1, 4, 2, 1]]


def found(linkage: str = "average", noise: float = 0.05) -> Hierarchy:
    tree = body_hierarchy(planted(CASIA_B, noise), linkage, clusters=[2, 4])
    return replace(tree, features="shape", sequences=12, frames=345, bootstrap=Bootstrap(100, "people", (1.0, 0.75)))


def test_the_published_splits_are_eighths() -> None:
    assert published_splits("casia-b") == CASIA_B
    assert published_splits("oumvlp") == published_splits("grew") == [[1, 6, 1], [1, 1, 3, 2, 1], [1, 1, 3, 1, 1, 1]]
    assert published_splits("gait3d") == [*CASIA_B, [1, 1, 3, 2, 1]]
    for name, config in PRESETS.items():
        assert config.with_splits(published_splits(name)) == config


@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_file_gives_the_same_hierarchy(linkage: str, tmp_path: Path) -> None:
    path = tmp_path / "hierarchy.json"
    tree = found(linkage)
    tree.save(path)
    assert Hierarchy.load(path) == tree
    content = json.loads(path.read_text())
    assert content["splits"] == CASIA_B
    assert content["clusters"] == [2, 4]
    assert content["bootstrap"] == {"resamples": 100, "unit": "people", "shares": [1.0, 0.75]}
    assert (content["features"], content["sequences"], content["frames"]) == ("shape", 12, 345)
    plain = body_hierarchy(planted(CASIA_B), linkage)
    assert plain.to_dict()["splits"] == []
    assert Hierarchy.from_dict(plain.to_dict()) == plain


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hierarchy.json"
    found().save(path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        body_hierarchy(planted([[4, 4]]), "average").save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["hierarchy.json"]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["splits"], [[5, 3], [1, 3, 3, 1]], r"splits\[1\] must have every boundary of splits\[0\]"),
        (["splits"], [[5, 3], [1, 4, 2, 2]], r"splits\[1\] must sum to the same number as the others"),
        (["splits"], [[10, 6], [2, 8, 4, 2]], r"splits\[0\] must sum to the 8 strips, got \[10, 6\], which sums to 16"),
        (["splits"], [[4, 4], [1, 3, 3, 1]], r"splits\[0\] must be \[5, 3\], where the merges leave 2 regions; got"),
        (["splits"], [[5, 3]], r"splits must be one for each of the clusters \[2, 4\], got 1"),
        (["splits"], [[5, 3], [1, 4, 2, 1.0]], r"splits\[1\] must be positive counts of strips"),
        (["splits"], "5,3", "splits must be a list of lists of strips, got '5,3'"),
        (["clusters"], [4, 2], r"clusters must increase, got \[4, 2\]"),
        (["clusters"], [2, 40], r"clusters must be at most the 8 strips, got \[2, 40\]"),
        (["strips"], 7, "strips must be at least 2 strips and a divisor of 64 rows, got 7"),
        (["strips"], 16, "merges must be a list of 15 merges, one fewer than strips; got 7 merges"),
        (["strips"], True, "got True"),
        (["linkage"], "median", "linkage must be one of ward, average, complete, single, got 'median'"),
        (["metric"], "cosinus", "did you mean 'cosine'"),
        (["features"], 3, "features must be a name, got 3"),
        (["sequences"], -1, "sequences must be a whole number from 0, got -1"),
        (["frames"], 1.5, "frames must be a whole number from 0, got 1.5"),
        (["merges"], None, "merges must be a list of 7 merges, one fewer than strips; got None"),
        (["merges", 0, "border"], 7, r"merges\[0\] must join two neighbouring clusters, got strips"),
        (["merges", 0, "start"], "1", r"merges\[0\] must join two neighbouring clusters"),
        (["merges", 6, "height"], 0.5, r"merges\[6\].height must be the largest distance so far, [\d.]+; got 0.5"),
        (["merges", 6, "distance"], float("nan"), r"merges\[6\].distance must be a finite number from 0, got nan"),
        (["merges", 6, "distance"], -1, r"merges\[6\].distance must be a finite number from 0, got -1"),
        (["bootstrap", "shares"], [1.0], r"bootstrap.shares must be a list of 2 shares, one for each cut"),
        (["bootstrap", "shares"], [1.0, 1.5], r"bootstrap.shares must be from 0 to 1"),
        (["bootstrap", "unit"], "days", "bootstrap.unit must be one of sequences, people, got 'days'"),
        (["split"], [], "hierarchy must hold strips, .*; got 'split'; did you mean 'splits'"),
    ],
)
def test_a_file_that_is_wrong_is_refused(place: list[Any], value: object, message: str, tmp_path: Path) -> None:
    content = copy.deepcopy(found().to_dict())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
        Hierarchy.load(path)


def test_a_file_that_is_no_hierarchy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text, message in {
        "{": "expected a hierarchy as JSON, got a file that is none",
        "[1]": r"hierarchy must be fields by name, got \[1\]",
        '{"splits": [[5, 3]]}': "hierarchy must hold strips, .*; strips, features, .* is missing",
        " " * 2**20 + "{}": "expected a hierarchy of at most 1048576 bytes, got a larger file",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Hierarchy.load(path)


def test_other_cuts_drop_the_bootstrap_of_these() -> None:
    tree = found().with_clusters([3])
    assert tree.clusters == (3,)
    assert tree.bootstrap is None
    assert found().splits([1, 8]) == [[8], [1] * 8]


def test_inversions_are_counted_and_never_shown() -> None:
    scipy = pytest.importorskip("scipy.cluster.hierarchy")
    # The outer strips lie nearer to the mean of the two inner ones than those to each other.
    tree = body_hierarchy([[0.0, 0.9], [-1.0, 0.0], [1.0, 0.0], [0.0, -9.0]], "ward")
    trees = [body_hierarchy(np.random.default_rng(seed).normal(size=(8, 5)), "ward") for seed in range(20)]
    assert any(each.inversions for each in trees)
    for each in (tree, *trees):
        matrix = each.linkage_matrix()
        assert scipy.is_valid_linkage(matrix)
        assert scipy.is_monotonic(matrix)
        falls = np.diff([merge.distance for merge in each.merges]) < 0
        assert bool(each.inversions) == bool(falls.any())


def test_the_text_shows_strips_regions_and_merges() -> None:
    lines = draw_text(body_hierarchy([[0.0], [1.0], [10.0], [12.0]], "single", clusters=[2, 3]))
    assert lines == [
        "strip  body height     2  3  tree: merged at height 0 to 9",
        "1      0.000 to 0.250  1  1  -----+",
        "                                  +-----------------------------------+",
        "2      0.250 to 0.500  1  1  -----+                                   |",
        "                                                                      +",
        "3      0.500 to 0.750  2  2  ----------+                              |",
        "                                       +------------------------------+",
        "4      0.750 to 1.000  2  3  ----------+",
    ]


def test_the_text_tells_merges_of_equal_height_apart() -> None:
    lines = draw_text(body_hierarchy([[0.0]] * 4, "average"))
    assert [line[23:] for line in lines[1:]] == [
        "-+",
        " +-+",
        "-+ +-+",
        "   | |",
        "---+ +",
        "     |",
        "-----+",
    ]


def test_the_text_says_what_the_cuts_are() -> None:
    assert describe_splits(found()) == [
        "2 regions: [5, 3], boundaries at 0.625, in 100% of the resamples",
        "4 regions: [1, 4, 2, 1], boundaries at 0.125, 0.625, 0.875, in 75% of the resamples",
    ]
    assert describe_splits(found().with_clusters([1])) == ["1 region: [8]"]
    own, other, _ = compare_with_published(found())
    assert describe_comparison(own) == "casia-b: [5, 3] -> [1, 4, 2, 1] in eighths; the tree's cuts are equal"
    assert describe_comparison(other).startswith(
        "oumvlp: [1, 6, 1] -> [1, 1, 3, 2, 1] -> [1, 1, 3, 1, 1, 1] in eighths"
    )
    assert own.chance == [1 / 7, 1 / 35]


def test_hierarchies_of_other_strips_are_compared_by_height() -> None:
    fine = body_hierarchy(planted([[10, 6], [2, 8, 4, 2]]), "average")
    own = compare_with_published(fine)[0]
    assert (own.equal, own.found) == ([True, True], [[10, 6], [2, 8, 4, 2]])
    coarse = compare_with_published(body_hierarchy([[0.0], [0.1], [4.0], [5.0]], "average"))
    assert [each.found is None for each in coarse] == [False, True, True]
    assert coarse[0].shared == [0, 0]
    assert describe_comparison(coarse[1]).endswith("the tree has fewer strips than that")


@pytest.mark.parametrize(("suffix", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_draws_every_kind_of_file(suffix: str, begin: bytes) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [hierarchy]")
    average = np.linspace(0, 1, 64 * 44).reshape(64, 44)
    picture = draw_hierarchy(found(), average, suffix)
    assert picture.startswith(begin)
    assert len(picture) < 80_000
    # A picture could name the day on which it was drawn; a PNG does not.
    assert suffix == ".png" or draw_hierarchy(found(), average, suffix) == picture


def test_draws_a_tree_without_cuts_and_without_a_silhouette() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [hierarchy]")
    assert b"cut into" not in draw_hierarchy(found().with_clusters([]), suffix=".svg")
    assert b"cut into" in draw_hierarchy(found(), suffix=".svg")


def test_the_picture_shows_cuts_and_merges() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [hierarchy]")
    from matplotlib.figure import Figure

    from hstl_fast.hierarchy.pictures import _draw_body, _draw_tree

    body, tree = Figure().subplots(1, 2)
    _draw_body(body, found(), np.zeros((64, 44)))
    assert [line.get_ydata()[0] for line in body.lines] == [0.625, 0.125, 0.875]
    assert len({line.get_linestyle() for line in body.lines}) == 2
    _draw_tree(tree, found())
    *merges, coarse, fine = tree.lines
    assert len(merges) == 7
    heights = [merge.height for merge in found().merges]
    assert [max(line.get_xdata()) for line in merges] == heights
    assert heights[5] < coarse.get_xdata()[0] < heights[6]
    assert heights[3] < fine.get_xdata()[0] < heights[4]
    with pytest.raises(ValueError, match=r"suffix must be one of .png, .svg, .pdf, got '.gif'"):
        draw_hierarchy(found(), suffix=".gif")


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_a_found_hierarchy_is_a_network(preset: str, tmp_path: Path) -> None:
    """Its native forward and backward pass is that of the reference."""
    skip_without_binary("cpu")
    path = tmp_path / "hierarchy.json"
    features = np.random.default_rng(1).normal(size=(8, 4))
    stages = len(PRESETS[preset].stages)
    body_hierarchy(features, "complete", clusters=range(3, 3 + stages)).save(path)
    splits = json.loads(path.read_text())["splits"]
    config = narrow_config(preset, divisor=16).with_splits(splits)
    assert [len(stage.split) for stage in config.stages] == [3, 4, 5][:stages]
    assert all(sum(stage.split) == config.rows for stage in config.stages)
    results = [gradients(config, backend) for backend in ("reference", "cpu")]
    bound = 100 * rounding(torch.float64, NETWORK)
    (expected, of_expected), (computed, of_computed) = results
    assert distance(computed, expected) < bound
    assert of_expected.keys() == of_computed.keys()
    for name, gradient in of_expected.items():
        assert distance_of_norms(of_computed[name], gradient) < bound, name


def gradients(config: HSTLConfig, backend: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Embeddings of four clips, and the gradients of a weighted sum of both outputs, in float64."""
    torch.manual_seed(0)
    model = HSTL(config).double()
    batch = torch.stack([walkers(6, seed) for seed in range(4)])
    with hstl_fast.use_backend(backend):
        out = model(batch)
        weights = [torch.linspace(-1, 2, each.numel(), dtype=torch.float64).view_as(each) for each in out]
        sum((each * weight).sum() for each, weight in zip(out, weights)).backward()
    return out.embeddings.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
