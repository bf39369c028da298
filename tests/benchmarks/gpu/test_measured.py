"""The table that the automatic choice follows has only what was measured and right."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import measured, suite
from hstl_fast.backends import measured as package

ENTRIES = [entry for entry in suite.entries(tiny=False) if entry.layer and entry.group.endswith("backward")]
WIDEST = next(entry for entry in ENTRIES if entry.name.startswith("forward and backward: arme 256-256"))
STRIPS = [entry for entry in ENTRIES if entry.layer and entry.layer.kind == "strip_pool"]


def row(backend: str, seconds: float, arithmetic: str = "bfloat16 autocast", status: str = "ok") -> dict[str, Any]:
    operators = dict.fromkeys(("arme", "astp", "fta"), backend)
    return {
        "status": status,
        "arithmetic": arithmetic,
        "precision": arithmetic.split()[0],
        "backends": operators,
        "device": {"median": seconds},
    }


def rows(entry: suite.Entry, **found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{entry.name} | hstl_fast {name}": each for name, each in found.items()}


def test_right_answers_are_listed_by_generation_operator_type_and_widths() -> None:
    bench = rows(
        WIDEST,
        cuda=row("cuda", 1.0),
        triton=row("triton", 2.0),
        auto=row("triton", 1.5),
        reference=row("reference", 9.0),
        cuda32=row("cuda", 4.0, "tf32"),
        slow32=row("cuda", 40.0, "float32"),
    )
    bench |= {f"{WIDEST.name} | eager float32": {"status": "ok"}}
    assert measured.table({"bench": bench}, "sm_90", tiny=False) == {
        "sm_90 | arme | bfloat16 | 256-256": {"cuda": 1.0, "reference": 9.0, "triton": 1.5},
        "sm_90 | arme | float32 | 256-256": {"cuda": 4.0},
    }


def test_wrong_answers_are_left_out() -> None:
    bench = rows(WIDEST, cuda=row("cuda", 1.0, status="wrong"), triton=row("triton", 2.0))
    assert measured.table({"bench": bench}, "sm_90", tiny=False) == {
        "sm_90 | arme | bfloat16 | 256-256": {"triton": 2.0}
    }


def test_a_failing_test_of_an_operator_leaves_its_backend_out() -> None:
    bench = rows(WIDEST, cuda=row("cuda", 1.0), triton=row("triton", 2.0))
    check = {
        "tests/gpu/test_operators.py::test_operator[arme 6-10 [5, 1, 3] 14x9x7 | tf32 | cuda]": {"status": "fail"},
        "tests/gpu/test_operators.py::test_operator[strip_pool 6 3 strips | tf32 | triton]": {"status": "died"},
        "tests/gpu/test_device.py::test_a_device": {"status": "fail"},
    }
    found = measured.table({"bench": bench, "check": check}, "sm_90", tiny=False)
    assert found == {"sm_90 | arme | bfloat16 | 256-256": {"triton": 2.0}}
    pool = measured.table({"bench": rows(STRIPS[0], triton=row("triton", 2.0)), "check": check}, "sm_90", tiny=False)
    assert pool == {}


def test_layers_of_one_kind_count_together() -> None:
    kind = [entry for entry in ENTRIES if measured.key(entry, row("cuda", 1.0), "g") == "g | astp | bfloat16 | 256"]
    assert len(kind) > 1
    bench: dict[str, Any] = {}
    for entry in kind:
        bench |= rows(entry, cuda=row("cuda", 1.0))
    bench |= rows(kind[0], triton=row("triton", 0.1))
    assert measured.table({"bench": bench}, "g", tiny=False) == {
        "g | astp | bfloat16 | 256": {"cuda": float(len(kind))}
    }


def test_a_run_is_merged_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(package, "FILE", tmp_path / "measured.json")
    package.FILE.write_text('{"sm_80 | arme | bfloat16 | 256-256": {"triton": 1.0}}')
    data: dict[str, Any] = {
        "identity": {"tiny": False},
        "machine": {"generation": "sm_90"},
        "rows": {"bench": rows(WIDEST, cuda=row("cuda", 1.0))},
    }
    results = tmp_path / "results.json"
    results.write_text(json.dumps(data))
    assert measured.main([str(results)]) == 0
    assert set(json.loads(package.FILE.read_text())) == {
        "sm_80 | arme | bfloat16 | 256-256",
        "sm_90 | arme | bfloat16 | 256-256",
    }
    for change in ({"identity": {"tiny": True}}, {"machine": {}}, {"rows": {}}):
        results.write_text(json.dumps({**data, **change}))
        assert measured.main([str(results)]) == 1
    assert "nothing to merge" in capsys.readouterr().err
    assert measured.main([]) == 1
