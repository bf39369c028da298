"""The build of modules: a change reaches the module, and objects without it are not compiled again."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.csrc.cuda import build

BINDINGS = """\
#include <pybind11/pybind11.h>

int value();

PYBIND11_MODULE(_cuda, m) { m.def("value", &value); }
"""
VALUE = """\
#include "value.cuh"
#ifndef FACTOR
#define FACTOR 1
#endif
int value() { return FACTOR * kValue; }
"""
SOURCES = {
    "bindings.cpp": BINDINGS,
    "value.cuh": "constexpr int kValue = 1;\n",
    "value.cu": VALUE,
}


@pytest.fixture
def csrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small csrc/cuda in the place of the project's."""
    build.compiler()  # which it finds by the project's own csrc/build.py
    folder = tmp_path / "csrc" / "cuda"
    folder.mkdir(parents=True)
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    return folder


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the sources that the test compiles."""
    names: list[str] = []
    run: Callable[[list[str]], None] = build.run

    def record(command: list[str]) -> None:
        names.extend(Path(word).name for word in command if word.endswith((".cpp", ".cu")))
        run(command)

    monkeypatch.setattr(build, "run", record)
    return names


def test_mutations(csrc: Path, compiled: list[str]) -> None:
    original = build.cuda_module(name="test_mutations._cuda")
    assert original.value() == 1
    compiled.clear()
    changes: list[tuple[str, str, str]] = [("value.cuh", "= 1", "= 2"), ("value.cu", "return ", "return 3 * ")]
    modules: list[ModuleType] = [build.mutated(*change) for change in changes]
    assert set(compiled) <= {"value.cu"}
    assert [module.value() for module in [original, *modules]] == [1, 2, 3]
    assert build.mutated("value.cu", "1\n", "5\n").value() == 5
    assert (csrc / "value.cuh").read_text() == SOURCES["value.cuh"]
    with pytest.raises(AssertionError, match=r"value.cu: expected 'value' once, found it 2 times"):
        build.mutated("value.cu", "value", "other")


@pytest.mark.usefixtures("csrc")
def test_flags_and_names() -> None:
    assert build.cuda_module("-DFACTOR=7", name="test_flags._cuda").value() == 7
    with pytest.raises(AssertionError, match=r"test_flags\._cuda is already the name of "):
        build.cuda_module(name="test_flags._cuda")


@pytest.mark.usefixtures("csrc")
def test_errors_of_the_compiler() -> None:
    with pytest.raises(AssertionError, match=r"value.cu:5:.*error"):
        build.mutated("value.cu", "return", "retrun")
