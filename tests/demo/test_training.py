"""`hstl-fast demo --train`: walkers are rendered, a hierarchy is found, a network learns and is evaluated on others."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import Result

import hstl_fast.info
from hstl_fast.checkpoints import load_checkpoint
from hstl_fast.data import part_of
from hstl_fast.demo.report.charts import hierarchy_chart, loss_chart
from hstl_fast.demo.report.training import training_page
from hstl_fast.demo.training import plan as plans
from hstl_fast.demo.training import population, running, scoring
from hstl_fast.demo.training.plan import Plan
from hstl_fast.demo.training.population import Population
from hstl_fast.demo.training.running import Trained, train_demo
from hstl_fast.demo.training.shipping import save_trained
from hstl_fast.hierarchy import body_hierarchy
from hstl_fast.models.config import HSTLConfig, Stage
from hstl_fast.network import SHIPPED_FILE, Network
from hstl_fast.silhouettes import walkers
from tests.cli.helpers import run
from tests.demo.helpers import Page, one_thread

SMALL = HSTLConfig((4,), (Stage((20, 12), (4,)), Stage((4, 16, 8, 4), (4,))), pool=True, strips=8, num_classes=1)
TINY = Plan(2, 2, (54, 90), frames=9, steps=3, network=SMALL, people=2, sequences=2, window=6)


@pytest.fixture(scope="module", autouse=True)
def small_networks_in_one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Demo(NamedTuple):
    result: Result
    html: str
    folder: Path
    trained: Trained


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """One run of the command with four walkers, two views and three steps."""
    folder = tmp_path_factory.mktemp("training")
    found = []

    def keep(*arguments: object) -> Trained:
        found.append(train_demo(*arguments))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "Plan", lambda **given: replace(TINY, **given))
        patch.setattr(running, "train_demo", keep)
        # Three steps may well leave a network no better than guessing.
        patch.setattr(running, "chance", lambda sequences: -1.0)
        result = run("demo", "--train", "--keep", folder / "kept", "--compare-reference", "-o", folder / "report.html")
    return Demo(result, (folder / "report.html").read_text(encoding="utf-8"), folder / "kept", found[0])


def test_nobody_is_both_learnt_from_and_tried(demo: Demo) -> None:
    trained = demo.trained
    assert set(trained.test.labels) == {"003", "004"}
    assert load_checkpoint(trained.checkpoint).training["classes"] == ["001", "002"]
    assert len(trained.test) == 2 * 10 * 2
    assert trained.scores.counts["people"] == 2
    assert trained.features.sequences == 2 * 10 * 2
    assert set(trained.features.labels) == {"001", "002"}


def test_the_hierarchy_that_is_found_is_that_of_the_network(demo: Demo) -> None:
    content = json.loads((demo.folder / "hierarchy.json").read_text())
    splits = demo.trained.hierarchy.splits()
    assert content["splits"] == splits
    assert [len(split) for split in splits] == [2, 4]
    stages = demo.trained.network.model.config.stages
    assert [[rows // 4 for rows in stage.split] for stage in stages] == splits
    assert " -> ".join(" + ".join(map(str, split)) for split in splits) in demo.result.stdout


def test_table_and_live_line(demo: Demo) -> None:
    trained = demo.trained
    lines = {line.split("  ")[0]: line.split()[-4:] for line in demo.result.stdout.splitlines() if "  " in line}
    for name, scores in (
        ("trained network", trained.scores),
        ("the same, untrained", trained.untrained),
        ("gait-energy image", trained.energy),
    ):
        assert lines[name] == [f"{scores.rates[each]:.1f}" for each in ("NM", "BG", "CL", "mean")]
    losses = [line["loss"] for line in trained.log]
    assert len(losses) == 3
    for step, loss in enumerate(losses, 1):
        assert f"training: step {step} of 3, loss {loss:.3f}, about " in demo.result.stderr


def test_the_reference_comes_to_the_same(demo: Demo) -> None:
    ours, reference = re.findall(r"^(?:native kernels|plain PyTorch \(reference\)) +(.*)$", demo.result.stdout, re.M)
    assert ours.split()[:4] == reference.split()[:4]
    assert re.search(r"plain PyTorch takes \d+\.\d\d times as long", demo.result.stdout)
    logs = [demo.folder / name / "log.jsonl" for name in ("training", "training-reference-seed-2023")]
    ours, reference = ([json.loads(line)["loss"] for line in log.read_text().splitlines()] for log in logs)
    assert ours == pytest.approx(reference, rel=1e-3)


def test_the_same_command_goes_on_with_what_is_kept(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (demo.folder / "training" / "log.jsonl").read_bytes()
    monkeypatch.setattr(population, "pack", None)
    with pytest.warns(match="all 3 steps were made before"):
        again = train_demo(TINY, demo.folder)
    assert again.checkpoint == demo.trained.checkpoint
    assert again.scores == demo.trained.scores
    assert (demo.folder / "training" / "log.jsonl").read_bytes() == before


def test_report_needs_nothing_but_itself(demo: Demo) -> None:
    found = Page(demo.html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img", "iframe", "object", "embed", "video", "base"})
    assert set(re.findall(r"url\(([^)]{0,22})", found.styles)) == {"data:image/png;base64,"}
    assert "//" not in re.sub(r"url\([^)]*\)", "", demo.html)
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in found.tags)


def test_report_is_complete(demo: Demo) -> None:
    found, trained = Page(demo.html), demo.trained
    assert len(found.of("score")) == len(found.of("band")) == trained.network.model.config.parts == len(trained.parts)
    assert len([tag for tag, _ in found.tags if tag == "polyline"]) == 2 * 2 + 7  # losses and merges
    assert len(found.of("same")) == 4 * 2  # NM, BG and CL, and NM of the energy image
    plan = trained.plan
    assert f"demo --train --people {plan.train + plan.test} --steps {plan.steps} " in found.text
    for text in ("rendered", "gait-energy image", "Triplet loss", "It is not the paper's method", "The machine"):
        assert text in found.text


def test_markup_of_the_report_follows_from_the_results(demo: Demo) -> None:
    rates = {"NM": 12.3, "BG": 23.4, "CL": 34.5, "mean": 45.6}
    scores = replace(demo.trained.scores, rates=rates)
    html = training_page(replace(demo.trained, scores=scores), hstl_fast.info.collect())
    row = re.search(r'<tr class="ours"><th scope="row">HSTL, trained here</th>(.*?)</tr>', html)[1]
    assert re.findall(r"<td>(.*?)</td>", row) == ["12.3", "23.4", "34.5", "45.6"]


def test_a_population_is_rendered_as_its_names_say() -> None:
    found = Population(3, 2, (126, 54), 4, seed=5)
    assert found.partition.train == ("001", "002")
    assert found.partition.test == ("003",)
    expected = walkers.render(2, view=126, condition="bg", take=2, frames=4, seed=5)
    assert np.array_equal(found.read(found.names.index("002/bg-02/126")), expected)
    assert found.names == tuple(sorted(found.names))


@pytest.mark.parametrize("package", ["lightning_fabric", "sklearn.cluster"])
def test_a_missing_extra_is_said_before_the_work(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run("demo", "--train", "--keep", tmp_path / "kept", "-o", tmp_path / "report.html", exit_code=1)
    assert "pip install 'hstl_fast[" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_any_number_of_steps_has_a_schedule(steps: int) -> None:
    schedule = replace(Plan(), steps=steps).training(Path("folder")).schedule
    assert schedule.steps == steps
    assert max(schedule.milestones) <= steps


def test_other_walkers_are_not_taken_for_those_that_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "walkers.arrow"
    for seed, frames in ((1, 2), (2, 2), (2, 3)):
        people = Population(2, 1, (90,), frames, seed)
        data = population.render_population(people, path)
        assert np.array_equal(data.read(11), people.read(11))


def test_people_are_divided_five_to_two() -> None:
    plan = Plan().with_people(14)
    assert (plan.train, plan.test, plan.people) == (10, 4, 8)
    plan = Plan().with_people(6)
    assert (plan.train, plan.test, plan.people) == (4, 2, 4)


@pytest.fixture(scope="module")
def people() -> Population:
    return Population(3, 0, (54, 90), 3, seed=1)


def test_rates_of_parts_and_regions(people: Population) -> None:
    """Part 1 alone knows everybody; the others know nobody, or take everybody for somebody else."""
    numbers = np.array([int(label) for label in people.labels], np.float32)
    config = HSTLConfig((4,), (Stage((32, 32), (1,)), Stage((16, 16, 32), (1,))), False, 2, 1)
    vectors = np.zeros((len(people), config.parts, 1), np.float32)
    known = 5  # the first region of the finest level
    vectors[:, known, 0] = numbers
    assert scoring.chance(people) == pytest.approx(100 / 3)
    assert scoring.score(vectors, people).rates == {"NM": 100, "BG": 100, "CL": 100, "mean": 100}
    found = scoring.scores_of_parts(vectors, people)
    assert found[known] == 100
    others = [rate for part, rate in enumerate(found) if part != known]
    assert others == pytest.approx([100 / 3] * len(others))  # all are as near: the first of the gallery
    regions = scoring.scores_of_regions(vectors, people, config)
    assert [(region.top, region.bottom, region.parts) for region in regions] == [
        (0.0, 0.25, [5]),
        (0.25, 0.5, [6]),
        (0.5, 1.0, [2, 4, 7, 9]),
    ]
    assert regions[0].alone == 100
    assert regions[0].without == pytest.approx(100 / 3)
    assert regions[1].without == 100


def test_the_energy_image_is_the_mean_silhouette(people: Population) -> None:
    some = people.subset([4, 17])
    model = hstl_fast.HSTL(SMALL)
    found = scoring.vectors_of(model, some)
    for row in range(2):
        mean = some.read(row)[:, :, 10:54].astype(np.float64).mean(axis=0) / 255
        assert np.abs(found.energy[row, 0] - mean.reshape(-1)).max() <= 1e-6
    assert torch.equal(torch.from_numpy(found.embeddings), model.embed([some.read(0), some.read(1)]))


def test_charts() -> None:
    html = loss_chart("A loss", [4.0, 2.0, 1.0], (2.0, "two"))
    raw, mean = re.findall(r'points="([^"]*)"', html)
    assert raw.split() == ["0.00,4.76", "50.00,52.38", "100.00,76.19"]
    assert mean.split()[0] == "0.00,4.76"
    assert 'y1="52.38" y2="52.38"' in html
    tree = body_hierarchy(np.array([[0.0], [0.0], [5.0], [5.5]]), clusters=[2])
    html = hierarchy_chart(tree, "film")
    assert len(re.findall("<polyline", html)) == 3
    assert re.findall(r'class="line c0" style="top: ([\d.]+)%"', html) == ["50.000"]
    assert 'points="0.00,12.50 0.00,12.50 0.00,37.50 0.00,37.50"' in html  # two equal strips merge at height 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", 3], "--steps: --train is missing"),
        (["--compare-reference", "--people", 9], "--people, --compare-reference: --train is missing"),
        (["--train", "--identities", 3], "--identities: cannot be combined with --train"),
        (["--train", "--preset", "casia-b", "--max-frames", 3], "--preset, --max-frames: cannot be combined with"),
        (["--train", "--steps", 0], "0 is not in the range"),
        (["--train", "--people", 5], "5 is not in the range"),
    ],
)
def test_wrong_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "train_demo", None)
    result = run("demo", *arguments, exit_code=2)
    assert sentence in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_network_that_guesses_is_a_failure(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "train_demo", lambda *_: replace(demo.trained, chance=100.0))
    result = run("demo", "--train", "-o", tmp_path / "report.html", exit_code=1)
    assert "no better than guessing: expected a rank-1 above 100.0 %" in result.stderr


def test_what_is_saved_says_what_it_was_trained_on(demo: Demo, tmp_path: Path) -> None:
    save_trained(demo.trained, tmp_path / "mine.pt")
    stored = load_checkpoint(tmp_path / "mine.pt")
    assert stored.optimizer is None
    assert stored.training["test"]["network"] == demo.trained.scores.rates
    assert stored.training["splits"] == demo.trained.hierarchy.splits()
    weights = demo.trained.network.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in stored.model.state_dict().items())


def test_the_network_that_comes_along_says_what_it_knows() -> None:
    assert SHIPPED_FILE.stat().st_size < 5_000_000
    stored, plan = load_checkpoint(SHIPPED_FILE), Plan()
    training = stored.training
    assert "rendered walkers alone" in training["knows"]
    assert (training["people"], training["views"], training["steps"], training["seed"], training["population"]) == (
        plan.train,
        list(plan.views),
        plan.steps,
        plan.seed,
        plan.population,
    )
    assert stored.model.config.with_splits(training["splits"]) == stored.model.config
    assert len(training["classes"]) == stored.model.config.num_classes == plan.train
    assert training["test"]["people"] >= 20
    assert len(plan.views) >= 4
    assert training["test"]["network"]["NM"] >= 90
    assert training["test"]["gait_energy_image"]["NM"] < 50


def test_the_network_that_comes_along_tells_strangers_apart() -> None:
    """Walkers of another population, whom it has never seen, from two views."""
    strangers = Population(10, 0, (54, 90), 20, seed=2023)
    normal = strangers.subset(i for i, kind in enumerate(strangers.types) if kind in ("nm-01", "nm-02", "nm-05"))
    vectors = scoring.vectors_of(Network.shipped().model, normal)
    ours, energy = (scoring.score(each, normal).rates["NM"] for each in vectors)
    assert ours >= 80
    assert ours > energy


@pytest.mark.slow
def test_the_table_of_the_network_that_comes_along(tmp_path: Path) -> None:
    plan, training = Plan(), load_checkpoint(SHIPPED_FILE).training
    test = part_of(Population(plan.train + plan.test, plan.train, plan.views, plan.frames, plan.population), "test")
    rates = scoring.score(scoring.vectors_of(Network.shipped().model, test).embeddings, test).rates
    assert rates == pytest.approx(training["test"]["network"], abs=0.5)


@pytest.mark.slow
def test_a_short_training_learns(tmp_path: Path) -> None:
    plan = replace(Plan(), train=24, test=10, steps=60)
    trained = train_demo(plan, tmp_path)
    assert trained.scores.rates["NM"] >= 1.5 * trained.energy.rates["NM"]
    assert trained.scores.rates["NM"] >= 5 * trained.chance
