"""Pictures and tables say what the results say, twice the same, and a README that says something else is found out."""

import copy
import itertools
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib, from the extra [bench]")

import matplotlib as mpl

from benchmarks.core.names import IN_CLIPS
from benchmarks.report import tables
from benchmarks.report.__main__ import differences, main, write
from benchmarks.report.goals import goals
from benchmarks.report.look import spread
from benchmarks.report.pictures import PICTURES, svg
from benchmarks.report.readme import PART, drawn
from benchmarks.report.results import load
from benchmarks.report.words import number
from tests.benchmarks.report import measured
from tests.benchmarks.report.measured import OURS, rival, untimed, workload

ROOT = Path(__file__).parents[3]
BEGIN, END = f"<!-- begin: {PART} -->", f"<!-- end: {PART} -->"
PICTURE_FILES = {picture.file for picture in PICTURES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where results lie."""
    path = tmp_path / "results" / "abacus"
    measured.save(path, measured.results())
    return path


README = f"# Über\r\n\n{BEGIN}\nold\n{END}\n\nrest, no newline"


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_bytes(README.encode())
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A README, and beside it results with everything made from them, drawn once."""
    path = tmp_path_factory.mktemp("original")
    (path / "README.md").write_bytes(README.encode())
    measured.save(path / "results" / "abacus", measured.results())
    assert main([str(path / "results" / "abacus"), "--page", "--readme", str(path / "README.md")]) == 0
    return path


@pytest.fixture
def written(original: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of (its folder of results, its README)."""
    copy = shutil.copytree(original, tmp_path / "copy")
    return copy / "results" / "abacus", copy / "README.md"


def texts(svg_text: str) -> list[str]:
    """What can be read in a picture."""
    return [element.text or "" for element in ET.fromstring(svg_text).iter("{http://www.w3.org/2000/svg}text")]


def draw(folder: Path, name: str) -> str:
    return svg(next(picture for picture in PICTURES if picture.name == name), load(folder))


def cells(table: tables.Table, row: str) -> dict[str, str]:
    """The row that starts with these words, by its headers."""
    (found,) = [line for line in table.rows if line[0] == row]
    return dict(zip(table.headers, found, strict=True))


def table(folder: Path, title: str) -> tables.Table:
    return next(table for table in tables.everything(load(folder)) if table.title == title)


def with_rivals(folder: Path, name: str, rivals: dict[str, Any]) -> None:
    """Replace the rivals of one embedding."""
    data = measured.results()
    data["benchmarks"] = [workload(name, "embedding", rivals)]
    measured.save(folder, data)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (99.94, "99.9"), (9.876, "9.88"), (0.12345, "0.123"), (0, "0")]
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_speed_table_has_medians_errors_and_what_ours_gains(folder: Path) -> None:
    wide, narrow = tables.speed(load(folder))
    assert cells(wide, "embed casia-b, 30 frames") == {
        "": "embed casia-b, 30 frames",
        OURS: "200 (1e-7)",
        "eager": "600 (2e-7)",
        "openvino": "240 (2e-7)",
        "fastest other / ours": "1.20",
    }
    assert cells(wide, "train casia-b, 4 x 30 frames")[OURS] == "3000 (1e-5, 4e-4)"
    assert cells(wide, "train casia-b, 4 x 30 frames")["openvino"] == tables.NONE
    assert cells(narrow, "embed casia-b, 30 frames")["eager bf16 autocast"] == "125 (3e-3)"
    assert cells(narrow, "embed casia-b, 30 frames")["fastest other / ours"] == "0.62"


def test_presets_stand_in_the_papers_order(folder: Path) -> None:
    rows = [row[0] for row in tables.speed(load(folder))[0].rows]
    assert rows[:2] == ["embed casia-b, 30 frames", "embed gait3d, 30 frames"]


def test_fastest_of_a_row_is_strong(folder: Path) -> None:
    with_rivals(folder, "casia-b, 30 frames", {"eager": rival(100), OURS: rival(101)})
    line = tables.markdown(tables.speed(load(folder))[0]).splitlines()[-1]
    assert line == "| embed casia-b, 30 frames | 101 (2e-7) | **100 (2e-7)** | 0.99 |"


def test_measurements_have_spread_rates_and_memory(folder: Path) -> None:
    rows = table(folder, "Embedding").rows
    ours = next(row for row in rows if row[1] == OURS)
    assert ours[2:] == ("float32", "200", "180 to 240", "5", "1.00", "1e-7", tables.NONE, "250", "150", "75.0")
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
    assert [(row[3], row[6], row[10]) for row in rows] == [("980", "0.98", "4408")]


FASTEST = "casia-b, one clip: the fastest other in float32 / ours"


def test_goals_take_the_worse_silhouettes_and_a_rivals_fastest_median(folder: Path) -> None:
    reached = {row[0]: row[2:] for row in goals(load(folder)).rows}
    assert reached == {
        FASTEST: ("1.20", "1.20", "1.50"),
        "casia-b, one clip: eager / ours": ("3.00", "3.00", "3.75"),
        "casia-b, one clip: the fastest in bfloat16 / ours": ("0.62", "0.62", "0.78"),
        "gait3d, one clip: the fastest other in float32 / ours": ("1.60", "1.60", tables.NONE),
        "casia-b, training step: the faster of eager and torch.compile / ours": ("1.30", "1.30", tables.NONE),
        "casia-b, training step: our peak memory / eager's": ("0.45", "0.45", tables.NONE),
        "64 sequences of 15 to 120 frames: our frames/s / those in clips of 30": ("0.98", "0.98", tables.NONE),
        "casia-b, one clip: our time on one thread / on two": ("1.90", tables.NONE, "1.90"),
    }
    assert goals(load(folder)).strong == {(5, 2), (6, 2), (7, 2)}


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
def test_a_rivals_fastest_median_is_of_the_same_shape(folder: Path, alike: dict[str, Any], ratio: str) -> None:
    """A rival that is as fast as ours in another workload."""
    data = measured.results()
    faster = {"openvino": rival(200), OURS: rival(200)}
    data["benchmarks"].append(workload("casia-b, again", **{"group": "scaling", "rivals": faster, **alike}))
    measured.save(folder, data)
    assert cells(goals(load(folder)), FASTEST)["reached"] == ratio


@pytest.mark.parametrize(("mebibytes", "strong"), [(500, True), (501, False)])
def test_a_goal_may_be_a_ceiling(folder: Path, mebibytes: int, strong: bool) -> None:
    data = measured.only(measured.results(), "training step")
    data["benchmarks"][0]["extra_info"]["rivals"][OURS]["peak_bytes"] = mebibytes * 2**20
    measured.save(folder, data)
    assert ((1, 2) in goals(load(folder)).strong) == strong


def test_goals_are_in_the_readme_and_the_tables(written: tuple[Path, Path]) -> None:
    line = f"| {FASTEST} | at least 5.5 | 1.20 | 1.20 | 1.50 |"
    folder, readme = written
    for path in (readme, folder / "tables.md"):
        assert line in path.read_bytes().decode()
    assert f"<td>{FASTEST}</td>" in (folder / "index.html").read_text(encoding="utf-8")


def test_without_anything_to_say_of_goals_there_are_none(folder: Path) -> None:
    data = measured.only(measured.results(), "throughput")
    measured.save(folder, data)
    list(write(folder))
    assert "Goals" not in (folder / "tables.md").read_text(encoding="utf-8")


def test_operators_are_summed_up_by_geometric_means(folder: Path) -> None:
    assert table(folder, "Operators").rows[0] == ("arme forward", "2", "4.00 (2.00 to 8.00)", "2e-7")


def test_markdown_tables_are_as_wide_everywhere(folder: Path) -> None:
    for table in tables.everything(load(folder)):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in tables.markdown(table).splitlines()}
        assert columns == {len(table.headers) + 1}, table.title


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
    assert "onnxruntime could not run on casia-b, 30 frames: onnxruntime is not installed." in notes
    assert "openvino bf16 was wrong or failed on casia-b, 30 frames: output is off by 3.0e-01, 0.03 allowed." in notes
    assert (
        "Abacus 3000, 2 cores, avx512, 2 threads, PyTorch 2.13.0; commit 0123456789 of 2026-11-21, measured 2026-11-22."
        in notes
    )


def test_a_rival_that_never_ran_has_no_bar(folder: Path) -> None:
    assert "onnxruntime" not in texts(draw(folder, "latency"))


def test_names_stand_in_order_of_speed_and_type(folder: Path) -> None:
    names = ["float32", OURS, "openvino", "eager", "bfloat16", "eager bf16 autocast", "openvino bf16"]
    assert [text for text in texts(draw(folder, "latency")) if text in names] == names


def test_bars_are_as_long_as_their_numbers(folder: Path) -> None:
    with_rivals(folder, "casia-b, 30 frames", {"eager": rival(300), OURS: rival(100)})
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


def test_the_same_results_give_the_same_files(written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written[0]
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"results.json", "tables.md", "index.html", *PICTURE_FILES}
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)
    list(write(folder, with_page=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert mpl.rcParams["font.size"] == 30


def test_pictures_are_opaque_and_without_a_date(folder: Path) -> None:
    picture = draw(folder, "latency")
    assert "fill: #ffffff" in picture[:3000]
    assert "dc:date" not in picture


def test_the_page_needs_no_other_file(written: tuple[Path, Path]) -> None:
    page = (written[0] / "index.html").read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/svg\+xml;base64,', page)) == len(PICTURES)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<td>600 (2e-7)</td>" in page


def test_what_was_not_measured_is_left_out(written: tuple[Path, Path]) -> None:
    folder = written[0]
    (folder / "notes.txt").write_text("mine")
    measured.save(folder, measured.only(measured.results(), "embedding"))
    lines = list(write(folder, with_page=True))
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "tables.md",
        "index.html",
        "latency.svg",
        "memory.svg",
        "operators.svg",
        "notes.txt",
    }
    assert f"left out {folder / 'training.svg'}: no timed workload of the group 'training step'" in lines
    assert "training.svg" not in (folder / "tables.md").read_text(encoding="utf-8")


OLDER_WITHOUT = (
    *("direct_flop", "winograd_flop", "inside_flop", "executed_flop"),
    *("silhouettes", "clips", "frames", "threads", "scaling", "division"),
)


def test_older_files_without_types_and_frames_are_read(folder: Path) -> None:
    data = measured.results()
    for entry in data["benchmarks"]:
        for key in OLDER_WITHOUT:
            entry["extra_info"].pop(key, None)
        for row in entry["extra_info"]["rivals"].values():
            del row["dtype"], row["peak_bytes"]
    del data["peaks"]["bfloat16_gflop_per_second"]
    measured.save(folder, data)
    results = load(folder)
    assert [results.dtype(name) for name in ("eager", "eager bf16 autocast")] == ["float32", "bfloat16"]
    assert {picture.name for picture in drawn(results)} == {"latency", "training", "roofline"}
    assert "direct limit 250" in texts(draw(folder, "latency"))


def test_readme_part_is_rewritten_and_nothing_else(written: tuple[Path, Path]) -> None:
    folder, readme = written
    text = readme.read_bytes().decode()
    assert text.startswith(f"# Über\r\n\n{BEGIN}\n![Time to embed one clip](results/abacus/latency.svg)\n")
    assert text.endswith(f"\n{END}\n\nrest, no newline")
    assert "| embed casia-b, 30 frames | **200 (1e-7)** | 600 (2e-7) | 240 (2e-7) | 1.20 |" in text
    assert "[all numbers](results/abacus/tables.md)" in text
    for picture in drawn(load(folder)):
        assert f"![{picture.title}](results/abacus/{picture.file})" in text
    assert "\nold\n" not in text
    for path in re.findall(r"\]\(([^)]+)\)", text):
        assert (readme.parent / path).is_file(), path
    list(write(folder, readme))
    assert readme.read_bytes().decode() == text


@pytest.mark.parametrize(
    "text", ["none", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"], ids=lambda text: repr(text[:12])
)
def test_readme_without_its_markers_is_left_alone(
    folder: Path, readme: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    readme.write_text(text, encoding="utf-8")
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert f"{readme}: expected one line {BEGIN} and one line {END} after it" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == text
    assert {path.name for path in folder.iterdir()} == {"results.json"}


def check(folder: Path, readme: Path) -> int:
    return main([str(folder), "--readme", str(readme), "--check"])


def test_check_passes_on_what_was_written_and_writes_nothing(written: tuple[Path, Path]) -> None:
    folder, readme = written
    before = {path: path.stat().st_mtime_ns for path in [readme, *folder.iterdir()]}
    assert check(folder, readme) == 0
    assert {path: path.stat().st_mtime_ns for path in [readme, *folder.iterdir()]} == before


@pytest.mark.parametrize("change", ["number in README", "tables", "picture", "page", "results"])
def test_check_finds_what_drifted(written: tuple[Path, Path], change: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, readme = written
    stale = {
        "number in README": [readme],
        "tables": [folder / "tables.md"],
        "picture": [folder / "latency.svg"],
        "page": [folder / "index.html"],
        "results": [readme, folder / "tables.md", folder / "index.html", *(folder / name for name in PICTURE_FILES)],
    }[change]
    if change == "results":
        data = measured.results()
        data["benchmarks"][0]["extra_info"]["rivals"][OURS]["median"] *= 0.5
        measured.save(folder, data)
    elif change == "picture":
        (folder / "latency.svg").unlink()
    elif change == "number in README":
        readme.write_bytes(readme.read_bytes().replace(b"200 (1e-7)", b"100 (1e-7)"))
    else:
        stale[0].write_text("something else", encoding="utf-8")
    assert check(folder, readme) == 1
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert sorted(line.split(": ")[0] for line in lines) == sorted(map(str, stale))


def test_check_finds_a_picture_of_something_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured.save(folder, measured.only(measured.results(), "training step"))
    list(write(folder))
    (folder / "latency.svg").write_text("older", encoding="utf-8")
    assert main([str(folder), "--check"]) == 1
    found, _ = capsys.readouterr().out.splitlines()
    assert found.startswith(f"{folder / 'latency.svg'}: the results do not give this picture")


WHOLE = "embedding of gait3d, 30 frames"
DAMAGE = [
    (("peaks", "float32_gflop_per_second"), 0, "the file: peaks: float32_gflop_per_second must be a number from"),
    (("peaks", "copy_gbyte_per_second"), "40", "copy_gbyte_per_second must be a number from 1e-12 to 1e+18, got '40'"),
    (("peaks", "bfloat16_gflop_per_second"), float("nan"), "bfloat16_gflop_per_second must be a number from"),
    (("machine_info", "hstl_fast", "threads"), "2", "the file: machine_info: hstl_fast: threads must be a positive"),
    (("commit_info", "id"), None, "the file: commit_info: id must be printable text, got None"),
    (("datetime",), 2026, "the file: datetime must be printable text, got 2026"),
    (("workload", "workload"), 3, "benchmark 0: extra_info: workload must be printable text, got 3"),
    (("workload", "training"), "no", f"{WHOLE}: training must be true or false, got 'no'"),
    (("workload", "dense_flop"), 0, f"{WHOLE}: dense_flop must be a positive integer, got 0"),
    (("workload", "dense_flop"), "50", f"{WHOLE}: dense_flop must be a positive integer, got '50'"),
    (("workload", "dense_flop"), 10**400, f"{WHOLE}: dense_flop must be a positive integer, got 1000"),
    (("workload", "frames"), -30, f"{WHOLE}: frames must be a positive integer or null, got -30"),
    (("workload", "direct_flop"), 0, f"{WHOLE}: direct_flop must be a positive integer or null, got 0"),
    (("workload", "inside_flop"), -1, f"{WHOLE}: inside_flop must be an integer, 0 or more or null, got -1"),
    (("workload", "silhouettes"), 3, f"{WHOLE}: silhouettes must be printable text or null, got 3"),
    (("workload", "division"), {"total": 0}, f"{WHOLE}: division: expected a field 'parts', got none"),
    (("workload", "division"), {"total": 1, "rounds": 1, "parts": []}, "division: parts must be a list of parts, got"),
    (("workload", "division"), {"total": 1, "rounds": 1, "parts": [3]}, "part 0: expected an object, got 3"),
    (("workload", "scaling"), {"axis": "frames", "value": "q"}, f"{WHOLE}: scaling: value must be a positive integer"),
    (("workload", "rivals"), [], f"{WHOLE}: rivals: expected an object, got []"),
    (("eager",), 3, f"{WHOLE}: rivals: eager: expected an object, got 3"),
    (("eager", "median"), "x", f"{WHOLE}: rivals: eager: median must be a number from 1e-12 to 1e+18 or null, got 'x'"),
    (("eager", "median"), -1, "eager: median must be"),
    (("eager", "median"), 0, "eager: median must be"),
    (("eager", "median"), float("nan"), "eager: median must be"),
    (("eager", "median"), 1e-320, "eager: median must be"),
    (("eager", "low"), None, "eager: low must be a number from 1e-12 to 1e+18, got None"),
    (("eager", "low"), 0, "eager: low must be"),
    (("eager", "high"), float("inf"), "eager: high must be"),
    (("eager", "rounds"), 2.5, "eager: rounds must be a positive integer, got 2.5"),
    (("eager", "errors"), None, "eager: errors: expected an object, got None"),
    (("eager", "errors", "output"), float("nan"), "eager: errors: output must be a number, 0 or more, got nan"),
    (("eager", "errors", "output"), None, "eager: errors: output must be a number, 0 or more, got None"),
    (("eager", "fault"), 3, "eager: fault must be text or null, got 3"),
    (("eager", "peak_bytes"), True, "eager: peak_bytes must be an integer, 0 or more or null, got True"),
]


def damaged(path: tuple[str, ...], value: object) -> str:
    """Good results with one field of the first workload, its rival or the file replaced."""
    data = copy.deepcopy(measured.results())
    first = data["benchmarks"][0]["extra_info"]
    content: Any = {**data, "workload": first, "eager": first["rivals"]["eager"]}
    if path == ("eager",):
        content = first["rivals"]
    for name in path[:-1]:
        content = content[name]
    if path == ("datetime",):
        content = data
    content[path[-1]] = value
    return json.dumps(data)


def broken() -> Iterator[tuple[str, str, str]]:
    """(name, the file's text, part of the message)."""
    good = measured.results()
    yield "not json", "{", "Expecting"
    yield "a list", "[]", "the file: expected an object, got []"
    yield "nested", "[" * 100_000, "recursion"
    yield "of pytest-benchmark alone", json.dumps({"benchmarks": []}), "expected a field 'peaks', got none"
    yield "no peaks", json.dumps({**good, "peaks": {}}), "expected a field 'float32_gflop_per_second', got none"
    yield "other benchmark", json.dumps({**good, "benchmarks": [{"extra_info": {}}]}), "expected a field 'group'"
    yield "null", json.dumps({**good, "benchmarks": None}), "benchmarks must be a list, got None"
    yield "empty", json.dumps({**good, "benchmarks": []}), "benchmarks must be a list of workloads, got an empty one"
    for path, value, message in DAMAGE:
        yield f"{'.'.join(path)}={str(value)[:20]}", damaged(path, value), message


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in broken()], ids=[case[0] for case in broken()])
def test_bad_results_are_one_line(
    folder: Path, readme: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "results.json").write_text(text, encoding="utf-8")
    before = readme.read_bytes()
    assert main([str(folder), "--readme", str(readme)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {folder / 'results.json'}: expected what `pytest benchmarks")
    assert message in line
    assert readme.read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"results.json"}


def test_an_empty_run_changes_nothing(written: tuple[Path, Path]) -> None:
    folder, readme = written
    measured.save(folder, {**measured.results(), "benchmarks": []})
    before = contents(folder, readme)
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert contents(folder, readme) == before


def test_a_readme_is_not_emptied_by_results_without_networks(
    written: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, readme = written
    measured.save(folder, measured.only(measured.results(), "arme forward"))
    before = contents(folder, readme)
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert "expected results with whole networks for the README, got none that was timed" in capsys.readouterr().err
    assert contents(folder, readme) == before


@pytest.mark.parametrize("taken", ["roofline.svg", "tables.md", "training.svg"])
def test_a_folder_in_the_place_of_a_file_changes_nothing(
    written: tuple[Path, Path], taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, readme = written
    measured.save(folder, measured.only(measured.results(), "embedding", "arme forward"))
    (folder / taken).unlink()
    (folder / taken).mkdir()
    before = contents(folder, readme)
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert f"{folder / taken}: expected a file" in capsys.readouterr().err
    assert contents(folder, readme) == before


def contents(folder: Path, readme: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [readme, *folder.iterdir()] if path.is_file()}


def test_a_readme_keeps_its_line_ends(folder: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes(f"# Title\r\n\r\n{BEGIN}\r\n{END}\r\n".encode())
    measured.save(folder, measured.only(measured.results(), "embedding"))
    list(write(folder, readme))
    text = readme.read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") > 10
    assert check(folder, readme) == 0


def test_reasons_are_shown_as_they_are_but_for_control_characters(folder: Path) -> None:
    failing = untimed(fault="raised Error: \x1b[31m$CC of $ \\frac{$PATH} $x^{")
    with_rivals(folder, "oumvlp, 30 frames", {"eager": failing, OURS: rival(100)})
    notes = " ".join(texts(draw(folder, "latency")))
    assert "raised Error: ?[31m$CC of $ \\frac{$PATH} $x^{." in notes


def test_the_error_of_a_wrong_answer_may_be_no_number(folder: Path) -> None:
    wrong = {**untimed(fault="output is off by nan"), "errors": {"output": float("nan"), "gradient": float("inf")}}
    with_rivals(folder, "oumvlp, 30 frames", {"eager": wrong, OURS: rival(100)})
    assert next(row for row in table(folder, "Embedding").rows if row[1] == "eager")[7:9] == ("nan", "inf")


def test_a_folder_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert main([str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"Error: {folder}: expected a folder with a results.json in it, got none there"


def test_a_missing_readme_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--readme", str(tmp_path / "none.md")]) == 2
    assert "none.md" in capsys.readouterr().err


def test_without_matplotlib_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("benchmarks.report.", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(folder)]) == 2
    assert "needs matplotlib, which is not installed: pip install -e '.[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", [[], [3.0], [1, 1, 1], [0, 9, 5, 5.5], [10, 9, 8, 1, 30]])
def test_labels_are_pushed_apart_and_no_further(wanted: list[float]) -> None:
    placed = spread(wanted, 2)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gaps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
    assert all(gap >= 2 - 1e-9 for gap in gaps)
    assert sum(placed) == pytest.approx(sum(wanted))
    if all(wanted[b] - wanted[a] >= 2 for a, b in itertools.pairwise(order)):
        assert placed == pytest.approx(wanted)


def committed() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "benchmarks" / "results").glob("*/results.json"))


@pytest.mark.skipif(not committed(), reason="no results are committed")
def test_committed_pictures_tables_and_readme_are_those_of_the_committed_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.partition(BEGIN)[2].partition(END)[0]
    named = {ROOT / path for path in re.findall(r"\((benchmarks/results/[^/)]+)/", part)}
    assert len(named) == 1, "the README's part on speed is made from one machine's results"
    for folder in committed():
        assert list(differences(folder, ROOT / "README.md" if folder in named else None)) == []
