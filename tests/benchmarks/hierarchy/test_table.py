"""The tables of docs/hierarchy.md."""

import numpy as np
import pytest

from benchmarks.hierarchy import __main__ as table
from hstl_fast.hierarchy import published_splits
from hstl_fast.silhouettes.walkers import recordings


def test_a_row_for_each_set_of_features_and_linkage(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="needs the extra [hierarchy]")
    monkeypatch.setattr(table, "RESAMPLES", 1)
    monkeypatch.setattr(
        table, "recordings", lambda *_, **__: recordings([1, 2], takes=["nm-01"], views=[90], frames=12)
    )
    data = table.Rendered()
    assert np.array_equal(data.read(0), next(recordings([1], takes=["nm-01"], views=[90], frames=12)).silhouettes)
    header, _, *lines, last = table.rows(data)
    assert header == "| features | linkage | 2 regions | 3 regions | 4 regions | 5 regions | 6 regions |"
    assert len(lines) == 16
    assert all(line.count("%") == 5 for line in lines)
    assert last == "2 sequences, 24 frames, 2 people"


def test_published_regions_are_bold() -> None:
    assert all(table._printed(split) == f"**{','.join(map(str, split))}**" for split in published_splits("gait3d"))
    assert table._printed([4, 4]) == "4,4"
