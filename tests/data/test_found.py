"""What is said about a data set, the report file, and the options of commands that read data."""

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hstl_fast.cli.found import FoundOptions, finish_input, found_options, open_input
from hstl_fast.data import DataError, check_nothing_left_out, describe, open_sequences, summarise, write_report
from hstl_fast.data.layouts.walk import OTHER_MODALITY
from hstl_fast.silhouettes.collecting import CUT, NOT_ALIGNED
from hstl_fast.silhouettes.left_out import LeftOut


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path / "data", *(f"{person}/nm-01/{view}/1.png" for person in ("001", "002") for view in ("000", "090")))
    touch(tmp_path / "data", "notes.txt")
    (tmp_path / "data" / "003").mkdir()
    return tmp_path / "data"


def test_counts_what_is_there(root: Path) -> None:
    assert describe(open_sequences(root), [LeftOut("x.png", "frames without a body")]) == {
        "source": str(root),
        "layout": "casia-b",
        "people": 2,
        "types": 1,
        "views": 2,
        "sequences": 4,
        "sequences_of_unknown_people": 0,
        "frames": None,
        "left_out": {"empty folder": 1, "file beside the sequences": 1, "frames without a body": 1},
        "notes": [],
        "partition": None,
    }
    assert summarise(open_sequences(root)) == [
        f"{root}: 2 people, 1 type, 2 views, 4 sequences (layout casia-b)",
        "Left out: 1 x empty folder; 1 x file beside the sequences",
    ]


def test_probes_and_distractors_of_grew_are_no_people(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("train/00001/aaaaaaa1/1.png", "test/gallery/00001/aaaaaaa2/1.png", "test/probe/aaaaaaa3/1.png"),
        *("test/probe/aaaaaaa4/1.png", "distractor/aaaaaaa5/1.png", "distractor/00007/aaaaaaa6/1.png"),
    )
    sequences = open_sequences(tmp_path)
    assert sequences.names == (
        *("00001/01/aaaaaaa2", "00001train/00/aaaaaaa1", "00007distractor/00/aaaaaaa6", "distractor/00/aaaaaaa5"),
        *("probe/03/aaaaaaa3", "probe/03/aaaaaaa4"),
    )
    found = describe(sequences)
    assert (found["people"], found["sequences_of_unknown_people"]) == (3, 3)
    assert "3 of the sequences of unknown people" in summarise(sequences)[0]


def test_the_report_lists_all_that_was_left_out(root: Path, tmp_path: Path) -> None:
    touch(root, os_name := "bad\udcff\n.txt")
    sequences, more = open_sequences(root), [LeftOut("001/1.png", "frames without a body", "frame 1")]
    write_report(tmp_path / "report.json", sequences, more)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["sequences"] == 4
    places = {os.path.relpath(each["where"], root) for each in report["left_out_list"] if root.name in each["where"]}
    assert places == {"notes.txt", "003", os_name}
    assert report["left_out_list"][-1] == more[0]._asdict()
    write_report(tmp_path / "report.txt", sequences, more)
    lines = (tmp_path / "report.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(summarise(sequences, more)) + 4
    assert lines[0] == summarise(sequences)[0]
    assert f"empty folder: {root / '003'}" in lines
    assert "frames without a body: 001/1.png (frame 1)" in lines


def test_strict_refuses_what_would_be_left_out(root: Path) -> None:
    with pytest.raises(DataError, match="1 x empty folder; 1 x file beside"):
        check_nothing_left_out(open_sequences(root))
    (root / "notes.txt").unlink()
    (root / "003").rmdir()
    check_nothing_left_out(
        open_sequences(root), [LeftOut("x", reason) for reason in (OTHER_MODALITY, CUT, NOT_ALIGNED)]
    )


@click.command
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path))
@found_options
def command(inputs: tuple[Path, ...], **options: Any) -> None:
    found = FoundOptions.take(options)
    assert not options
    sequences = open_input(inputs, found)
    click.echo(f"opened {len(sequences)}")
    finish_input(sequences, [LeftOut("001/nm-01/000/1.png", "frames without a body")], found)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_command_says_what_it_found(root: Path, tmp_path: Path) -> None:
    result = run(root, "--report", tmp_path / "report.txt")
    assert result.exit_code == 0
    assert result.stdout == "opened 4\n"
    assert result.stderr.splitlines() == [
        *summarise(open_sequences(root)),
        "Left out while reading: 1 x frames without a body",
    ]
    assert "frames without a body: 001/nm-01/000/1.png" in (tmp_path / "report.txt").read_text()
    assert run(root).stderr.endswith("(--report FILE lists them)\n")


def test_strict_stops_a_command_and_leaves_the_report(root: Path, tmp_path: Path) -> None:
    result = run(root, "--strict", "--report", tmp_path / "report.json")
    assert isinstance(result.exception, DataError)
    assert "opened" not in result.output
    assert len(json.loads((tmp_path / "report.json").read_text())["left_out_list"]) == 2


def test_options_reach_the_data_set(root: Path, tmp_path: Path) -> None:
    (tmp_path / "partition.json").write_text('{"TRAIN_SET": ["001"], "TEST_SET": ["002"]}')
    result = run(root, "--partition", tmp_path / "partition.json", "--layout", "folders")
    assert "layout folders" in result.stderr
    assert "Partition: train 1 person, 2 sequences; test 1 person, 2 sequences" in result.stderr
    assert run(root, "--layout", "casia").exit_code == 2
