"""Partition files, published divisions, and what a partition and the data do not share."""

import json
from pathlib import Path

import pytest

from hstl_fast.data import (
    DataError,
    Partition,
    describe,
    load_partition,
    open_sequences,
    part_of,
    published_partition,
    with_partition,
)
from hstl_fast.data.partitions import ABSENT_PERSON, ABSENT_SEQUENCE, UNNAMED_PERSON


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for person in ("001", "002", "003"):
        for view in ("000", "090"):
            folder = tmp_path / "data" / person / "nm-01" / view
            folder.mkdir(parents=True)
            (folder / f"{view}.pkl").touch()
    return tmp_path / "data"


def write(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "partition.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_divides_the_data(root: Path, tmp_path: Path) -> None:
    file = write(
        tmp_path, {"TRAIN_SET": ["001", "004"], "TEST_SET": ["002"], "PROBE_SET": ["002-nm-01-090", "002-x-1"]}
    )
    sequences = open_sequences(root, partition=file)
    assert sequences.partition == Partition(("001", "004"), ("002",), ("002-nm-01-090", "002-x-1"))
    assert set(part_of(sequences, "train").labels) == {"001"}
    assert part_of(sequences, "test").names == ("002/nm-01/000", "002/nm-01/090")
    assert {(each.where, each.reason) for each in sequences.left_out} == {
        ("004", ABSENT_PERSON),
        ("003", UNNAMED_PERSON),
        ("002-x-1", ABSENT_SEQUENCE),
    }
    assert describe(sequences)["partition"] == {
        "train": {"people": 1, "sequences": 2},
        "test": {"people": 1, "sequences": 2},
    }


def test_a_partition_leaves_the_data_set_that_it_is_given_to(root: Path) -> None:
    whole = open_sequences(root)
    divided = with_partition(whole, Partition(("001",), ("002",)))
    assert (whole.partition, whole.left_out) == (None, ())
    assert len(divided.left_out) == 1
    assert with_partition(divided, None) is divided
    again = with_partition(divided, Partition(("001", "002"), ("003",)))
    assert again.left_out == ()
    assert part_of(divided, "train").partition == divided.partition


def test_other_leading_zeros_are_named(root: Path) -> None:
    sequences = open_sequences(root, partition=Partition(("1", "2"), ("3",)))
    assert any("3 people have other leading zeros" in note for note in sequences.notes)
    with pytest.raises(
        DataError, match="expected sequences of the 2 people of the train set, got none; the data has 001"
    ):
        part_of(sequences, "train")


def test_a_part_needs_a_partition(root: Path) -> None:
    with pytest.raises(DataError, match="--partition"):
        part_of(open_sequences(root), "train")
    with pytest.raises(ValueError, match="train, test, got 'probe'"):
        part_of(open_sequences(root), "probe")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "as JSON"),
        ("[]", "got list"),
        ({"train": []}, "an object with train"),
        ({"TRAIN_SET": [], "TEST_SET": []}, "got none"),
        ({"TRAIN_SET": "001"}, "TRAIN_SET to be a list of names in quotes, got a str"),
        ({"TRAIN_SET": ["001", 2]}, "got 2 in it"),
        ({"TRAIN_SET": ["001", "001"], "TEST_SET": []}, "got 001 more than once"),
        ({"TRAIN_SET": ["001", "002"], "TEST_SET": ["002"]}, "got 002 in both"),
    ],
)
def test_other_files_are_refused(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as failure:
        load_partition(write(tmp_path, content))
    message = str(failure.value)
    assert words in message
    assert "partition.json: expected" in message


def test_one_set_is_enough(tmp_path: Path) -> None:
    assert load_partition(write(tmp_path, {"TEST_SET": ["Jose\u0301"]})) == Partition((), ("Jos\u00e9",))


def test_published_divisions() -> None:
    casia_b = published_partition("casia-b", (f"{i:03d}" for i in range(1, 125)))
    assert (len(casia_b.train), casia_b.train[-1], len(casia_b.test), casia_b.test[0]) == (74, "074", 50, "075")
    oumvlp = published_partition("oumvlp", (f"{i:05d}" for i in range(1, 10308)))
    assert (len(oumvlp.train), len(oumvlp.test)) == (5153, 5154)
    assert (oumvlp.train[:2], oumvlp.train[-1]) == (("00001", "00003"), "10305")
    assert (oumvlp.test[:2], oumvlp.test[-2:]) == (("00002", "00004"), ("10306", "10307"))
    grew = published_partition("grew", ["00001train", "00001", "probe", "distractor", "00002distractor"])
    assert grew == Partition(("00001train",), ("00001", "probe"))


def test_a_division_without_a_rule_is_refused() -> None:
    with pytest.raises(DataError, match=r"gait3d is divided by a list.*--partition"):
        published_partition("gait3d", ["0000"])
    with pytest.raises(DataError, match="casia-b: expected labels as its publishers name people, got ann, bob"):
        published_partition("casia-b", ["bob", "ann", "ann"])
