"""Tables say what the results say."""

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib, from the extra [bench]")

from benchmarks.core.names import IN_CLIPS
from benchmarks.report import tables
from benchmarks.report.results import labels, load
from benchmarks.report.words import number
from tests.benchmarks.report import measured
from tests.benchmarks.report.helpers import cells, table, with_implementations
from tests.benchmarks.report.measured import OURS, outcome, untimed


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (99.94, "99.9"), (9.876, "9.88"), (0.12345, "0.123"), (0, "0")]
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_speed_table_has_medians_errors_and_what_ours_gains(folder: Path) -> None:
    is_float32, narrow = tables.speed(load(folder))
    assert cells(is_float32, "embed casia-b, 30 frames") == {
        "": "embed casia-b, 30 frames",
        OURS: "200 (1e-7)",
        "eager": "600 (2e-7)",
        "openvino": "240 (2e-7)",
        "fastest other / ours": "1.20",
    }
    assert cells(is_float32, "train casia-b, 4 x 30 frames")[OURS] == "3000 (1e-5, 4e-4)"
    assert cells(is_float32, "train casia-b, 4 x 30 frames")["openvino"] == tables.NONE
    assert cells(narrow, "embed casia-b, 30 frames")["eager bf16 autocast"] == "125 (3e-3)"
    assert cells(narrow, "embed casia-b, 30 frames")["openvino int8"] == "100 (6e-2; 4 of 24)"
    assert cells(narrow, "embed casia-b, 30 frames")["fastest other / ours"] == "0.50"
    assert "so many probes have another nearest sequence than in float64" in narrow.note


def test_processors_are_below_each_other(folder: Path) -> None:
    other = folder.parent / "fast"
    measured.save(other, measured.of_another_processor(microarchitecture="Zen 5", family=26, model=2, stepping=1))
    first, second = load(folder), load(other)
    is_float32, narrow = tables.speed(first, second)
    assert is_float32.headers[:3] == ("", "cores", OURS)
    rows = [row for row in is_float32.rows if row[0] == "embed casia-b, 30 frames"]
    assert [row[1:4] for row in rows] == [("abacus", "200 (1e-7)", "600 (2e-7)"), ("Zen 5", "100 (1e-7)", "300 (2e-7)")]
    assert [row[1] for row in narrow.rows] == ["abacus", "Zen 5"]
    assert (1, 2) in is_float32.strong
    assert second.machine.startswith("Abacus 5000 (Zen 5, family 26, model 2, stepping 1), 2 cores, avx512")
    assert labels([second, second]) == ["fast", "fast"]


def test_presets_stand_in_the_papers_order(folder: Path) -> None:
    rows = [row[0] for row in tables.speed(load(folder))[0].rows]
    assert rows[:2] == ["embed casia-b, 30 frames", "embed gait3d, 30 frames"]


def test_fastest_of_a_row_is_strong(folder: Path) -> None:
    with_implementations(folder, "casia-b, 30 frames", {"eager": outcome(100), OURS: outcome(101)})
    line = tables.markdown(tables.speed(load(folder))[0]).splitlines()[-1]
    assert line == "| embed casia-b, 30 frames | 101 (2e-7) | **100 (2e-7)** | 0.99 |"


def test_measurements_have_spread_rates_and_memory(folder: Path) -> None:
    rows = table(folder, "Embedding").rows
    ours = next(row for row in rows if row[1] == OURS)
    assert ours[2:] == ("float32", "200", "180 to 240", "5", "1.00", "1e-7", *(tables.NONE,) * 2, "250", "150", "75.0")
    wrong = next(row for row in rows if row[1] == "openvino bf16")
    assert wrong[3] == "wrong"


def test_arithmetic_is_dense_inside_the_support_and_executed(folder: Path) -> None:
    assert cells(table(folder, "Arithmetic"), "embed casia-b, 30 frames") == {
        "": "embed casia-b, 30 frames",
        "dense GFLOP": "50.0",
        "inside the support": "30.0 (60%)",
        "executed by ours": "6.00 (12%)",
        "dense GFLOP/s": "250",
        "executed GFLOP/s": "30.0 (15%)",
    }


def test_our_time_is_divided_among_the_layers(folder: Path) -> None:
    divided = table(folder, "Where our time goes: casia-b, 30 frames")
    assert divided.rows == (
        ("stage 1, 1-32", "30.0", "15%", "3.00", "100 (50%)"),
        ("stage 2, 32-32", "150", "75%", "15.0", "100 (50%)"),
        ("everything else", "20.0", "10%", tables.NONE, tables.NONE),
    )
    assert divided.note.startswith("Of 200 ms in all; medians of 15 rounds")


def test_variations_are_beside_ours(folder: Path) -> None:
    rows = [row for row in table(folder, "Variations").rows if row[1] == IN_CLIPS]
    assert [(row[3], row[6], row[11]) for row in rows] == [("980", "0.98", "4408")]


def test_operators_are_summed_up_by_geometric_means(folder: Path) -> None:
    assert table(folder, "Operators").rows[0] == ("arme forward", "2", "4.00 (2.00 to 8.00)", tables.NONE, "2e-7")


def test_markdown_tables_are_as_wide_everywhere(folder: Path) -> None:
    for each in tables.everything(load(folder)):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in tables.markdown(each).splitlines()}
        assert columns == {len(each.headers) + 1}, each.title


def test_the_error_of_a_wrong_answer_may_be_no_number(folder: Path) -> None:
    wrong = {**untimed(fault="output is off by nan"), "errors": {"output": float("nan"), "gradient": float("inf")}}
    with_implementations(folder, "oumvlp, 30 frames", {"eager": wrong, OURS: outcome(100)})
    assert next(row for row in table(folder, "Embedding").rows if row[1] == "eager")[7:9] == ("nan", "inf")
