"""Goals are judged by the worse silhouettes and the fastest baselines."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib, from the extra [bench]")

from benchmarks.report import tables
from benchmarks.report.__main__ import write
from benchmarks.report.goals import goals, summary
from benchmarks.report.results import load
from tests.benchmarks.report import measured
from tests.benchmarks.report.helpers import cells
from tests.benchmarks.report.measured import OURS, outcome, workload

FASTEST = "casia-b, one clip: the fastest other in float32 / ours"


def test_goals_take_the_worse_silhouettes_and_a_baselines_fastest_median(folder: Path) -> None:
    reached = {row[0]: row[2:] for row in goals(load(folder)).rows}
    assert reached == {
        FASTEST: ("1.20", "1.20", "1.50"),
        "gait3d, one clip: the fastest other in float32 / ours": ("1.60", "1.60", tables.NONE),
        "casia-b, one clip: the fastest in bfloat16 / ours": ("0.62", "0.62", "0.78"),
        "casia-b, one clip: the fastest in int8 / ours": ("0.50", "0.50", "0.62"),
        "casia-b, training step: the faster of eager and torch.compile / ours": ("1.30", "1.30", tables.NONE),
        "casia-b, training step: our peak memory / eager's": ("0.45", "0.45", tables.NONE),
        "casia-b, one clip: our time on one thread / on two": ("1.90", tables.NONE, "1.90"),
        "strip pool of 128 channels: torch.compile / ours": ("1.20", "1.20", tables.NONE),
        "64 sequences of 15 to 120 frames: our frames/s / those in clips of 30": ("0.98", "0.98", tables.NONE),
    }
    assert goals(load(folder)).strong == {(6, 2), (8, 2)}


def test_each_processor_has_its_own_columns(folder: Path) -> None:
    other = folder.parent / "fast"
    data = measured.of_another_processor(microarchitecture="Zen 5")
    only_faster = next(e["extra_info"] for e in data["benchmarks"] if e["extra_info"]["group"] == "training step")
    only_faster["implementations"][OURS]["peak_bytes"] = 350 * 2**20
    measured.save(other, data)
    table = goals(load(folder), load(other))
    ours, sources = "abacus: reached", ("people", "walkers")
    assert table.headers[2:4] == (ours, "abacus: people")
    assert table.headers[5:] == ("Zen 5: reached", *(f"Zen 5: {source}" for source in sources))
    memory = next(i for i, row in enumerate(table.rows) if "peak memory" in row[0])
    assert table.rows[memory][1:] == ("at most 0.4", "0.45", "0.45", tables.NONE, "0.35", "0.35", tables.NONE)
    assert (memory, 2) not in table.strong
    assert (memory, 5) in table.strong


def test_a_goal_that_one_processor_says_nothing_of_is_shown(folder: Path) -> None:
    other = folder.parent / "fast"
    measured.save(other, measured.only(measured.results(), "training step"))
    row = cells(goals(load(folder), load(other)), FASTEST)
    assert (row["abacus: reached"], row["fast: reached"]) == ("1.20", tables.NONE)


@pytest.mark.parametrize(
    ("alike", "ratio"),
    [
        ({}, "1.00"),
        ({"silhouettes": None}, "1.00"),
        ({"clips": 2}, "1.20"),
        ({"threads": 1}, "1.20"),
        ({"preset": "oumvlp"}, "1.20"),
        ({"training": True}, "1.20"),
        ({"group": "variations"}, "1.20"),
    ],
    ids=["same", "other silhouettes", "clips", "threads", "preset", "training", "ours alone"],
)
def test_a_baselines_fastest_median_is_of_the_same_shape(folder: Path, alike: dict[str, Any], ratio: str) -> None:
    """An implementation that is as fast as ours in another workload."""
    data = measured.results()
    faster = {"openvino": outcome(200), OURS: outcome(200)}
    data["benchmarks"].append(workload("casia-b, again", **{"group": "scaling", "implementations": faster, **alike}))
    measured.save(folder, data)
    assert cells(goals(load(folder)), FASTEST)["reached"] == ratio


@pytest.mark.parametrize(("mebibytes", "strong"), [(400, True), (401, False)])
def test_a_goal_may_be_a_ceiling(folder: Path, mebibytes: int, strong: bool) -> None:
    data = measured.only(measured.results(), "training step")
    data["benchmarks"][0]["extra_info"]["implementations"][OURS]["peak_bytes"] = mebibytes * 2**20
    measured.save(folder, data)
    assert ((1, 2) in goals(load(folder)).strong) == strong


def test_goals_are_in_the_readme_and_the_tables(written: tuple[Path, Path]) -> None:
    line = f"| {FASTEST} | at least 7 | 1.20 | 1.20 | 1.50 |"
    folder, readme = written
    for path in (readme, folder / "tables.md"):
        assert line in path.read_bytes().decode()
    assert f"<td>{FASTEST}</td>" in (folder / "index.html").read_text(encoding="utf-8")


def test_a_summary_says_of_every_goal_whether_it_is_reached(folder: Path) -> None:
    data = measured.only(measured.results(), "embedding", "variations")
    data["benchmarks"][0]["extra_info"]["implementations"]["zentorch"] = {"unavailable": "not installed"}
    measured.save(folder, data)
    lines = summary(load(folder))
    assert lines[0] == "2 of 6 goals reached (ratios; the worse of people's and walkers' silhouettes):"
    assert f"  missed    1.20  at least 7     {FASTEST}" in lines
    assert "  reached   1.90  at least 1.9   casia-b, one clip: our time on one thread / on two" in lines
    assert "  not measured: strip pool of 128 channels: torch.compile / ours" in lines
    (compared,) = [line for line in lines if line.startswith("Compared with ")]
    assert "openvino" in compared
    assert not {"hstl_fast cpu", "zentorch"} & set(compared.removesuffix(".").split(", "))
    assert any(line.startswith("Without a time: zentorch could not run on ") for line in lines)


def test_a_summary_of_other_workloads_is_empty(folder: Path) -> None:
    measured.save(folder, measured.only(measured.results(), "throughput"))
    assert summary(load(folder)) == []


def test_without_anything_to_say_of_goals_there_are_none(folder: Path) -> None:
    data = measured.only(measured.results(), "throughput")
    measured.save(folder, data)
    list(write(folder))
    assert "Goals" not in (folder / "tables.md").read_text(encoding="utf-8")
