"""CUDA graphs are compared with the same network layer by layer; one that was not captured is not called one."""

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import graphs, stage_tables
from hstl_fast import HSTL
from tests.benchmarks.gpu.helpers import CPU


def test_what_no_graph_computes_is_no_graph() -> None:
    row = graphs.measured("reference", (3, 4), CPU, tiny=True)
    assert (row["status"], row["graphs"], row["identical"]) == ("unavailable", 0, True)


def test_both_ways_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "captured", lambda model: 1)
    row = graphs.measured("reference", (3,), CPU, tiny=True)
    assert row["status"] == "ok"
    assert row["speedup"] == pytest.approx(row["layers"]["median"] / row["graph"]["median"])
    lines = list(stage_tables.BEFORE["graphs"]({"one clip | hstl_fast cuda": row}))
    assert any("| the same |" in line for line in lines)


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    embed = HSTL.embed

    def spoilt(self: HSTL, given: list[Tensor]) -> Tensor:
        return 1.5 * embed(self, given)

    monkeypatch.setattr(graphs, "captured", lambda model: 1)
    monkeypatch.setattr(HSTL, "embed", spoilt)
    row = graphs.measured("reference", (3,), CPU, tiny=True)
    assert row["status"] == "wrong"
    assert "graph" not in row
    assert torch.tensor(row["error"]) > 0.4
