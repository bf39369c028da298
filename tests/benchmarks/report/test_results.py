"""Results files are read, older ones too, and damaged ones are refused in one line."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib, from the extra [bench]")

from benchmarks.report.__main__ import main
from benchmarks.report.markdown import drawn
from benchmarks.report.results import load
from benchmarks.report.words import number
from tests.benchmarks.report import measured
from tests.benchmarks.report.helpers import draw, texts

OLDER_WITHOUT = (
    *("direct_flop", "winograd_flop", "inside_flop", "executed_flop"),
    *("silhouettes", "clips", "frames", "threads", "scaling", "division"),
)


def test_older_files_without_types_and_frames_are_read(folder: Path) -> None:
    data = measured.results()
    for entry in data["benchmarks"]:
        for key in OLDER_WITHOUT:
            entry["extra_info"].pop(key, None)
        for row in entry["extra_info"]["implementations"].values():
            del row["dtype"], row["peak_bytes"]
    for key in [key for key in data["peaks"] if key.startswith("bfloat16") or "multiply_adds" in key]:
        del data["peaks"][key]
    measured.save(folder, data)
    results = load(folder)
    assert [results.dtype(name) for name in ("eager", "eager bf16 autocast")] == ["float32", "bfloat16"]
    assert {picture.name for picture in drawn(results)} == {"latency", "training", "roofline"}
    assert "direct limit 333" in texts(draw(folder, "latency"))


WHOLE = "embedding of gait3d, 30 frames"


DAMAGE = [
    (("peaks", "float32_library_gflop_per_second"), 0, "the file: peaks: float32_library_gflop_per_second must be a"),
    (("peaks", "copy_gbyte_per_second"), "40", "copy_gbyte_per_second must be a number from 1e-12 to 1e+18, got '40'"),
    (
        ("peaks", "bfloat16_library_gflop_per_second"),
        float("nan"),
        "bfloat16_library_gflop_per_second must be a number",
    ),
    (("machine_info", "hstl_fast", "threads"), "2", "the file: machine_info: hstl_fast: threads must be a positive"),
    (("commit_info", "id"), None, "the file: commit_info: id must be printable text, got None"),
    (("datetime",), 2026, "the file: datetime must be printable text, got 2026"),
    (
        ("machine_info", "hstl_fast", "processor"),
        {"microarchitecture": 5},
        "the file: machine_info: hstl_fast: processor: microarchitecture must be printable text or null, got 5",
    ),
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
    (("workload", "implementations"), [], f"{WHOLE}: implementations: expected an object, got []"),
    (("eager",), 3, f"{WHOLE}: implementations: eager: expected an object, got 3"),
    (
        ("eager", "median"),
        "x",
        f"{WHOLE}: implementations: eager: median must be a number from 1e-12 to 1e+18 or null, got 'x'",
    ),
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
    """Good results with one field of the first workload, its implementation or the file replaced."""
    data = copy.deepcopy(measured.results())
    first = data["benchmarks"][0]["extra_info"]
    content: Any = {**data, "workload": first, "eager": first["implementations"]["eager"]}
    if path == ("eager",):
        content = first["implementations"]
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
    yield (
        "no peaks",
        json.dumps({**good, "peaks": {}}),
        "peaks: expected a float32 rate of multiply-adds or of a library",
    )
    yield "other benchmark", json.dumps({**good, "benchmarks": [{"extra_info": {}}]}), "expected a field 'group'"
    yield "null", json.dumps({**good, "benchmarks": None}), "benchmarks must be a list, got None"
    yield "empty", json.dumps({**good, "benchmarks": []}), "benchmarks must be a list of workloads, got an empty one"
    for path, value, message in DAMAGE:
        yield f"{'.'.join(path)}={str(value)[:20]}", damaged(path, value), message


REGISTERS, LIBRARY = "multiply-adds from registers", "the best product of a library: "


@pytest.mark.parametrize(
    ("own", "library", "missing", "peak", "source"),
    [
        (200.0, 150.0, None, 200.0, REGISTERS),
        (200.0, None, None, 200.0, REGISTERS),
        (200.0, 520.0, None, 520.0, f"{LIBRARY}openvino"),
        (None, 150.0, "there is no C++ compiler", 150.0, f"{LIBRARY}openvino; {REGISTERS}: there is no C++ compiler"),
    ],
)
def test_the_peak_is_the_larger_of_both_measures(
    folder: Path, own: float | None, library: float | None, missing: str | None, peak: float, source: str
) -> None:
    data = measured.results()
    data["peaks"] |= {
        "float32_multiply_adds_gflop_per_second": own,
        "float32_library_gflop_per_second": library,
        "float32_library": "openvino",
        "multiply_adds_missing": missing,
    }
    measured.save(folder, data)
    assert load(folder).peaks == (peak, 40.0, 400.0, source)
    assert f"direct limit {number(40e3 / peak)}" in texts(draw(folder, "latency"))
    assert f"{peak:.0f} GFLOP/s ({source})" in " ".join(texts(draw(folder, "latency")))
    assert f"float32 {peak:.0f}" in texts(draw(folder, "roofline"))


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


def test_a_folder_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert main([str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"Error: {folder}: expected a folder with a results.json in it, got none there"
