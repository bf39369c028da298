"""The open-set figures of rendered walkers: who is compared with whom, and what is written."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.recognition import open_set as page
from hstl_fast.evaluation.error_rates import Interval


@pytest.mark.slow
def test_tables_and_files_of_a_few_walkers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [plot]")
    monkeypatch.setattr(sys, "argv", ["open_set", "--people", "6", "--frames", "5", "--into", str(tmp_path)])
    page.main()
    assert capsys.readouterr().out == (tmp_path / "open-set.md").read_text()
    document = json.loads((tmp_path / "open-set.json").read_text())
    rows = {(row["setting"], row["probes"], row["method"]): row for row in document["rows"]}
    assert len(rows) == 2 * 4 * 2
    counts = rows["same-views", "all", page.NETWORK]["counts"]
    # Three people are enrolled with 2 takes of 4 views, and everybody is searched with 3 takes of 4 views.
    assert (counts["gallery"], counts["known_probes"], counts["unknown_probes"]) == (24, 36, 36)
    counts = rows["another-view", "CL", page.ENERGY]["counts"]
    assert (counts["gallery"], counts["known_probes"], counts["unknown_probes"]) == (6, 9, 9)
    assert [each["asked"] for each in document["thresholds"][:3]] == [0.001, 0.01, 0.1]
    assert "the smallest is 4 %" in document["thresholds"][0]["refused"]
    assert set(document["thresholds"][2]["measured"]) == {"NM", "BG", "CL"}
    assert {path.name for path in tmp_path.iterdir()} == {
        *("open-set.json", "open-set.md", "open-set-same-views.svg", "open-set-another-view.svg")
    }


def test_the_population_is_not_that_of_the_shipped_network() -> None:
    from hstl_fast.demo.training.plan import Plan

    assert Plan().population != page.POPULATION


def test_small_rates_have_more_digits() -> None:
    assert page._with_ends(0.5, Interval(0.4, 0.6)) == "50.0 (40.0 to 60.0)"
    assert page._with_ends(0.001, None) == "0.10"
    assert page._with_ends(None, None) == "-"
