"""Pictures of evaluations: which there are, and that they show the numbers."""

import builtins
from typing import Any

import numpy as np
import pytest

from hstl_fast.evaluation.pictures import draw_pictures, draw_sheet, picture_names, require_matplotlib
from hstl_fast.evaluation.protocols import Outcome

COUNTS: dict[str, int | None] = {"people": 2, "probes": 4, "gallery": 4, "probes_without_partner": 0}


def outcome(**changed: Any) -> Outcome:
    fields: dict[str, Any] = {
        "tables": {"NM": [[100.0, 25.0], [None, 0.0]], "CL": [[None, None], [None, None]]},
        "views": ["000", "018"],
        "curves": {"NM": [25.0, 75.0, 100.0]},
    }
    return Outcome("casia-b", "euclidean", COUNTS, {"NM": {"rank1": 25.0}}, **(fields | changed))


def test_tables_with_numbers_and_curves_are_drawn() -> None:
    assert picture_names(outcome()) == ["rank1-NM", "cmc"]
    assert picture_names(outcome(tables={"NM": {"rank1": [1.0, 2.0], "mAP": [1.0, 2.0]}})) == ["cmc"]
    assert picture_names(outcome(tables={"header": ["videoId"], "rows": [["v", "1"]]}, views=[], curves={})) == []


def test_the_same_evaluation_gives_the_same_files() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [plot]")
    pictures = draw_pictures(outcome())
    assert list(pictures) == ["rank1-NM", "cmc"]
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    curves = outcome(tables={})
    assert draw_sheet(curves, ".svg") == draw_sheet(curves, ".svg")
    assert draw_sheet(curves, ".pdf").startswith(b"%PDF")


def test_heat_maps_and_curves_show_the_numbers() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [plot]")
    from matplotlib.figure import Figure

    from hstl_fast.evaluation.pictures import _curves, _heat_map

    figure = Figure()
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    _heat_map(left, outcome(form=("cross-view",)), "NM", outcome().tables["NM"])
    shown = np.ma.filled(left.images[0].get_array(), np.nan)
    assert np.array_equal(shown, [[100, 25], [np.nan, 0]], equal_nan=True)
    assert left.images[0].get_clim() == (0, 100)
    assert [text.get_text() for text in left.texts] == ["100", "25", "", "0"]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["000", "018"]
    assert left.get_title() == "casia-b, euclidean distance, cross-view: NM, rank-1 (%)"
    _curves(right, outcome())
    assert right.lines[0].get_xydata().tolist() == [[1, 25], [2, 75], [3, 100]]


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="casia-b has neither tables nor curves to draw"):
        draw_sheet(outcome(tables={}, curves={}))


def test_a_missing_matplotlib_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "matplotlib":
            raise ImportError("no module of that name")
        return load(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'hstl_fast\[plot\]'"):
        require_matplotlib()
