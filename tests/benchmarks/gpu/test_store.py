"""The results file is whole after every row, is continued, and files of others are left alone."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.gpu import (
    environment,
)
from benchmarks.gpu.store import Store, Unusable
from tests.benchmarks.gpu.helpers import CPU, IDENTITY, held, rows_in, run


def test_the_store_is_whole_and_continues(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    first = Store(out, IDENTITY, {}, fresh=False)
    first.put("bench", "w | a", {"status": "wrong", "error": float("nan")})
    first.put("bench", "w | b", {"status": "not reached"})
    first.put("bench", "w | c", {"status": "wrong", "sources": "old"})
    first.put("bench", "w | e", {"status": "stopped"})
    first.put("bench", "w | f", {"status": "failed"})
    assert rows_in(out)["bench"]["w | a"] == {"status": "wrong", "error": "nan"}
    keys = [f"w | {name}" for name in "abcdef"]
    again = Store(out, IDENTITY, {}, fresh=False)
    assert again.open("bench", keys, "new") == ["w | b", "w | c", "w | d", "w | e"]
    assert again.open("bench", keys, "old") == ["w | b", "w | d", "w | e"]


@pytest.mark.parametrize("name", IDENTITY)
def test_other_results_are_left_alone(tmp_path: Path, name: str) -> None:
    Store(tmp_path, IDENTITY, {}, fresh=False).put("bench", "w | a", {"status": "failed"})
    before = held(tmp_path)
    with pytest.raises(Unusable, match=rf"--out holds other results \({name} .*, now other\).*--fresh"):
        Store(tmp_path, {**IDENTITY, name: "other"}, {}, fresh=False)
    assert held(tmp_path) == before


def test_fresh_throws_away_what_the_kit_wrote(tmp_path: Path) -> None:
    old = Store(tmp_path, {**IDENTITY, "kit": "old"}, {}, fresh=False)
    old.put("bench", "w | a", {"no": "status"})
    old.write_table("old")
    (tmp_path / "log.txt").write_text("old")
    (tmp_path / "mine.txt").write_text("precious")
    assert Store(tmp_path, IDENTITY, {}, fresh=True).open("bench", ["w | a"], "old") == ["w | a"]
    assert sorted(held(tmp_path)) == ["mine.txt", "results.json"]
    assert rows_in(tmp_path) == {}


OF_OTHERS = [
    {"results.json": "{"},
    {"results.json": "[]"},
    {"results.json": '{"format": 1, "rows": {}}'},
    {"results.json": '{"format": 1, "rows": {}, "identity": "of a kit"}'},
    {"results.json": '{"machine_info": {}, "benchmarks": [], "version": "5"}', "log.txt": "precious"},
    {"log.txt": "precious"},
    {"table.md": "precious"},
]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("files", OF_OTHERS)
def test_files_of_others_are_left_alone(tmp_path: Path, files: dict[str, str], fresh: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Unusable, match=r"this kit.*; name another folder$"):
        Store(tmp_path, IDENTITY, {}, fresh)
    assert held(tmp_path) == files


def test_any_other_file_may_lie_in_the_folder(tmp_path: Path) -> None:
    names = ["probe", "results", "results.json.tmp", ".results.json"]
    for name in names:
        (tmp_path / name).write_text("precious")
    Store(tmp_path, IDENTITY, {}, fresh=False).write_table("new")
    after = held(tmp_path)
    assert sorted(after) == sorted([*names, "results.json", "table.md"])
    assert {after[name] for name in names} == {"precious"}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (None, "expected rows by stage and name"),
        ({"bench": "w"}, "expected rows by stage and name"),
        ({"bench": {"w | a": "ok"}}, r"row 'w \| a' of bench has no status"),
        ({"bench": {"w | a": {"reason": "lost"}}}, r"row 'w \| a' of bench has no status"),
        ({"bench": {"w | a": {"status": ["ok"]}}}, r"row 'w \| a' of bench has no status"),
        ({"bench": {"w | a": {"status": "ok"}}}, r"row 'w \| a' of bench lacks what its table shows"),
        ({"profile": {"a": {"status": "ok"}}}, "row 'a' of profile lacks what its table shows"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: object, fault: str
) -> None:
    identity = environment.identity(CPU, tiny=True)
    (tmp_path / "results.json").write_text(json.dumps({"format": 1, "identity": identity, "rows": rows}))
    before = held(tmp_path)
    assert run(tmp_path, "--stage", "bench", "--only", "peaks") == 2
    printed = capsys.readouterr().err
    assert re.fullmatch(rf"benchmarks\.gpu: .*results\.json is damaged: {fault}; name .* --fresh .*\n", printed)
    assert held(tmp_path) == before


def test_results_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"format": 0, "identity": IDENTITY, "rows": []}))
    with pytest.raises(Unusable, match=r"is of another version \(format 0, now 1\).*--fresh"):
        Store(tmp_path, IDENTITY, {}, fresh=False)
    Store(tmp_path, IDENTITY, {}, fresh=True)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "out") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "cannot be written: Not a directory" in printed


def test_a_table_that_cannot_be_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path, IDENTITY, {}, fresh=False)
    (tmp_path / "table.md").mkdir()
    with pytest.raises(Unusable, match=r"table\.md cannot be written: (Is a directory|.* got a folder)"):
        store.write_table("new")
