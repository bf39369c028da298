"""Figures and peaks reach the table."""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import (
    compare,
    implementations,
    suite,
    table,
)
from hstl_fast.ops import _dispatch
from tests.benchmarks.gpu.helpers import CPU, rows_in, run, statuses


@pytest.mark.slow
def test_figures_and_peaks_reach_the_table(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "bench", "--only", "peaks") == 0
    layer = next(w.name for w in suite.entries(tiny=True) if w.group == "arme forward and backward")
    assert run(tmp_path, "--stage", "bench", "--only", layer) == 0
    rows = rows_in(tmp_path)["bench"]
    assert rows["peaks | float32 product"]["flop_per_second"] > 0
    assert rows["peaks | device copy"]["byte_per_second"] > 0
    measured = {key: row for key, row in rows.items() if key.startswith(layer)}
    assert set(statuses(measured).values()) == {"ok"}
    released = measured[f"{layer} | eager float16 autocast, released setting"]
    assert (released["cudnn_deterministic"], released["cudnn_benchmark"]) == (True, False)
    ours = measured[f"{layer} | hstl_fast auto, float32"]
    assert ours["backends"] == dict.fromkeys(_dispatch.OPERATORS, "cpu") or "cpu" not in implementations.backends(
        CPU, torch.float32
    )
    assert ours["device"]["rounds"] == compare.TINY_ROUNDS
    text = (tmp_path / "table.md").read_text()
    assert f"| hstl_fast auto, float32 | {ours['device']['median'] * 1e3:.3f} |" in text
    assert "- float32 product: " in text


def test_the_table_gives_the_share_of_the_peak() -> None:
    times = {"device": {"median": 0.5, "low": 0.4, "high": 0.6}, "wall": {"median": 0.5}}
    figures = {"sequences_per_second": 2.0, "peak_bytes": None, "errors": {"output": 1e-7, "gradient": None}}
    flags = {"cudnn_benchmark": False, "cudnn_deterministic": False, "seconds_to_first_answer": 12.34}
    row = {"status": "ok", "precision": "bfloat16", **times, **figures, **flags}
    rows = {
        "peaks | bfloat16 product": {"status": "ok", "flop_per_second": 8e12},
        "peaks | device copy": {"status": "ok", "byte_per_second": 4e9},
        "arme | a": {**row, "dense_flop_per_second": 6e12, "byte_per_second": None},
        "fta | b": {**row, "dense_flop_per_second": 6e12, "byte_per_second": 1e9},
        "fta | c": {**row, "precision": "tf32", "dense_flop_per_second": 6e12, "byte_per_second": None},
    }
    lines = table.render_rows({"bench": rows}).splitlines()
    shares = {line[2]: line.split(" | ")[6] for line in lines if line[:4] in ("| a ", "| b ", "| c ")}
    assert shares == {"a": "75%", "b": "25%", "c": "-"}
    assert next(line for line in lines if line.startswith("| a ")).endswith("| 12.3 |")
