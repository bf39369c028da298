"""The comparison of distances checks before it times, and the projection measures what it says."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.cpu import distances
from hstl_fast.evaluation import comparison


def test_right_implementations_are_timed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "distances.json"
    sizes = ["--probes", "9", "--gallery", "30", "--parts", "2", "--channels", "17", "--rounds", "2"]
    distances.main([*sizes, "--json", str(file)])
    rows = json.loads(file.read_text())["implementations"]
    assert rows.keys() == distances.IMPLEMENTATIONS.keys()
    printed = capsys.readouterr().out
    for name, row in rows.items():
        assert name in printed
        assert row["fault"] is None or "not installed" in row["fault"]
        assert (row["fault"] is None) == (len(row.get("seconds", ())) == 2)
    assert rows[distances.PRODUCTS]["times_the_products"] == 1


def test_wrong_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(probe: Tensor, gallery: Tensor) -> Tensor:
        return distances.product_form(probe, gallery) * 1.001

    def failing(probe: Tensor, gallery: Tensor) -> Tensor:
        raise ValueError("too large")

    monkeypatch.setitem(distances.IMPLEMENTATIONS, "wrong", wrong)
    monkeypatch.setitem(distances.IMPLEMENTATIONS, "failing", failing)
    rows = distances.compare(3, 8, 2, 5, 1)["implementations"]
    assert rows["wrong"]["fault"].startswith("WRONG: error 1.0e-03")
    assert rows["failing"]["fault"] == "FAILED: ValueError: too large"
    assert not {"seconds", "median"} & (rows["wrong"].keys() | rows["failing"].keys())


def test_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    k = 42
    a_probe = 4 * (k + distances.OUMVLP_PARTS * distances.OUMVLP_CHANNELS)
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 100 * a_probe)
    result = distances.project(2, k)
    assert result["probes_of_a_block"] == 100
    assert result["probes_measured"] == 200
    assert result["rank_one"] == 1
    assert result["projected_seconds"] > result["seconds_of_a_block"] * distances.OUMVLP / 100


def test_embeddings_are_of_people_in_turns() -> None:
    made = torch.from_numpy(distances.embeddings(9, 3, 5))
    same = distances.part_distances(made[:3], made[3:6])
    assert (same.argmin(1) == torch.arange(3)).all()
