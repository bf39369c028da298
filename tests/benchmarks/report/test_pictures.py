"""Pictures say what the results say."""

import itertools
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib, from the extra [bench]")

from benchmarks.report.__main__ import write
from benchmarks.report.look import spread
from tests.benchmarks.report import measured
from tests.benchmarks.report.helpers import draw, texts, with_implementations
from tests.benchmarks.report.measured import OURS, outcome, untimed, workload


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("latency", ["casia-b", "gait3d", OURS, "eager", "200", "600", "1e-7", "3e-3", "direct limit 200", "wrong"]),
        ("latency", ["30 frames, walkers", "700", "160", "Winograd limit 40.0"]),
        ("throughput", ["12 + 30 + 57 frames", "100", "50.0", "direct limit 165"]),
        ("operators", ["casia-b, 30 frames", "200 ms", "stage 2, 32-32", "150 (75%)", "everything else"]),
        ("training", ["training, 4 x 30 frames", "3000", "1e-5 | 4e-4"]),
        ("memory", ["75.0", "150", "300", "not measured"]),
        ("scaling", ["casia-b, frames of one clip", OURS, "eager", "10", "60"]),
        ("roofline", ["ARME", "float32 200", "bfloat16 400", "copy 40 GB/s", "casia-b 250", "gait3d 200"]),
    ],
)
def test_pictures_are_xml_with_their_numbers(folder: Path, name: str, labels: list[str]) -> None:
    found = texts(draw(folder, name))
    assert set(labels) <= set(found)


def test_pictures_say_who_has_no_time_and_why(folder: Path) -> None:
    notes = " ".join(texts(draw(folder, "latency")))
    assert "Rank-1 answers of a search of rendered walkers that differ from float64's: openvino int8 4 of 24." in notes
    assert "onnxruntime could not run on casia-b, 30 frames: onnxruntime is not installed." in notes
    assert "openvino bf16 was wrong or failed on casia-b, 30 frames: output is off by 3.0e-01, 0.03 allowed." in notes
    assert (
        "Abacus 3000, 2 cores, avx512, 2 threads, PyTorch 2.13.0; commit 0123456789 of 2026-11-21, measured 2026-11-22."
        in notes
    )


def test_an_implementation_that_never_ran_has_no_bar(folder: Path) -> None:
    assert "onnxruntime" not in texts(draw(folder, "latency"))


def test_names_stand_in_order_of_speed_and_type(folder: Path) -> None:
    names = [
        "float32",
        OURS,
        "openvino",
        "eager",
        "bfloat16",
        "eager bf16 autocast",
        "openvino bf16",
        "int8",
        "openvino int8",
    ]
    assert [text for text in texts(draw(folder, "latency")) if text in names] == names


def test_bars_are_as_long_as_their_numbers(folder: Path) -> None:
    with_implementations(folder, "casia-b, 30 frames", {"eager": outcome(300), OURS: outcome(100)})
    bars = re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]*"[^>]*fill: (#0072b2|#a7b0ba)', draw(folder, "latency"))
    lengths = {color: float(right) - float(left) for left, right, color in bars}
    assert lengths["#a7b0ba"] == pytest.approx(3 * lengths["#0072b2"], rel=1e-4)


def test_types_narrower_than_float32_are_hatched(folder: Path) -> None:
    assert "<pattern" in draw(folder, "latency")
    assert "<pattern" not in draw(folder, "training")


def test_pooling_without_products_is_not_on_the_roofline(folder: Path) -> None:
    assert "ARME" in texts(draw(folder, "roofline"))
    assert "strip pooling" not in texts(draw(folder, "roofline"))


def test_networks_on_the_roofline_embed_people(folder: Path) -> None:
    assert not {"casia-b 312", "casia-b 313"} & set(texts(draw(folder, "roofline")))
    data = measured.only(measured.results(), "embedding", "arme forward")
    data["benchmarks"][2]["extra_info"]["silhouettes"] = "people"
    measured.save(folder, data)
    assert "casia-b 312" in texts(draw(folder, "roofline"))


def test_a_run_where_everybody_is_wrong_is_still_drawn(folder: Path) -> None:
    data = measured.results()
    failing = {"eager": untimed(fault="raised ValueError: <a> & b\nc"), OURS: untimed(fault="output is off")}
    data["benchmarks"] = [workload("oumvlp, 30 frames", "embedding", failing), data["benchmarks"][0]]
    measured.save(folder, data)
    assert "eager was wrong or failed on oumvlp, 30 frames: raised ValueError: <a> & b c." in texts(
        draw(folder, "latency")
    )
    assert list(write(folder, with_page=True))
    assert "raised ValueError: &lt;a&gt; &amp; b c" in (folder / "index.html").read_text(encoding="utf-8")


def test_pictures_are_opaque_and_without_a_date(folder: Path) -> None:
    picture = draw(folder, "latency")
    assert "fill: #ffffff" in picture[:3000]
    assert "dc:date" not in picture


def test_reasons_are_shown_as_they_are_but_for_control_characters(folder: Path) -> None:
    failing = untimed(fault="raised Error: \x1b[31m$CC of $ \\frac{$PATH} $x^{")
    with_implementations(folder, "oumvlp, 30 frames", {"eager": failing, OURS: outcome(100)})
    notes = " ".join(texts(draw(folder, "latency")))
    assert "raised Error: ?[31m$CC of $ \\frac{$PATH} $x^{." in notes


@pytest.mark.parametrize("wanted", [[], [3.0], [1, 1, 1], [0, 9, 5, 5.5], [10, 9, 8, 1, 30]])
def test_labels_are_pushed_apart_and_no_further(wanted: list[float]) -> None:
    placed = spread(wanted, 2)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gaps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
    assert all(gap >= 2 - 1e-9 for gap in gaps)
    assert sum(placed) == pytest.approx(sum(wanted))
    if all(wanted[b] - wanted[a] >= 2 for a, b in itertools.pairwise(order)):
        assert placed == pytest.approx(wanted)
