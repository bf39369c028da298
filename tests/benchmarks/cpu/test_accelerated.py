"""GaitGL before and after `accelerate`."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from benchmarks.cpu import accelerated


@pytest.mark.slow
def test_rows_of_inference_and_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    accelerated.main(f"--configurations casia-b --clips 1 --frames 3 --rounds 1 --threads 1 --json {path}".split())
    content = json.loads(path.read_text())
    assert [row["training"] for row in content["rows"]] == [False, True]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == content["rows"]
    assert all(0 <= row["error"] < accelerated.BOUND and row["ratio"] > 0 for row in content["rows"])
    assert content["machine"]["processor"]


def test_other_results_are_refused() -> None:
    changed = mock.patch.object(accelerated, "accelerate", lambda model: model.Bn.weight.data.mul_(2))
    with changed, pytest.raises(AssertionError, match="expected outputs that differ by at most"):
        accelerated.measure("casia-b", 1, training=True, rounds=1, frames=3)


def _row(configuration: str, ratio: float) -> dict[str, Any]:
    return {"configuration": configuration, "training": False, "frames": 30, "clips": 1, "ratio": ratio}


def test_rows_of_parts_come_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    accelerated.write(path, [_row("oumvlp", 1.0), _row("casia-b", 2.0)], threads=2)
    accelerated.write(path, [_row("oumvlp", 3.0)], threads=2)
    assert json.loads(path.read_text())["rows"] == [_row("casia-b", 2.0), _row("oumvlp", 3.0)]


def test_rows_of_other_machines_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    accelerated.write(path, [_row("casia-b", 1.0)], threads=1)
    before = path.read_text()
    with pytest.raises(SystemExit, match="must be a new file or one of this processor and 2 threads"):
        accelerated.write(path, [_row("casia-b", 2.0)], threads=2)
    assert path.read_text() == before
