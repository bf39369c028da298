"""Texts for results name no folder of the machine."""

import pytest

from benchmarks.core.text import anonymous


@pytest.mark.parametrize(
    ("full", "shown"),
    [
        ("no /home/jo hn/x.py or /tmp/a/b.c", "no x.py or b.c"),
        (r"File 'C:\\Users\\jo hn\\x.py'", "File 'x.py'"),
        (r"C:\Users\john\x.py: D:/a/b.cpp", "x.py: b.cpp"),
        ("a: b or c, 3 / 4", "a: b or c, 3 / 4"),
        ("/usr/a/b.py, see https://example.org/a/b", "b.py, see https://example.org/a/b"),
        ("two\n  lines", "two lines"),
    ],
)
def test_texts_are_without_folders(full: str, shown: str) -> None:
    assert anonymous(full) == shown
