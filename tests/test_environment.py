"""Every variable of the environment is described, read in one place and refused in the same words when it is wrong."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hstl_fast import environment
from hstl_fast.environment import VARIABLES, Variable

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "setup.py", *(ROOT / "hstl_fast").rglob("*.py"), *(ROOT / "csrc").rglob("*.*")]
RUN_TIME = [variable for variable in VARIABLES if not variable.build_time]
READERS: dict[str, Callable[[], object]] = {
    "HSTL_FAST_BACKEND": environment.backend,
    "HSTL_FAST_ALGORITHM": environment.algorithm,
    "HSTL_FAST_PACKED_CACHE": environment.packed_cache_bytes,
    "HSTL_FAST_MEMORY_CACHE": environment.memory_cache,
    "HSTL_FAST_TILES": environment.tiles,
    "HSTL_FAST_DEBUG": environment.debug,
    "HSTL_FAST_CPU_ISA": environment.cpu_isa,
}
FLAGS = [("HSTL_FAST_DEBUG", False), ("HSTL_FAST_MEMORY_CACHE", True)]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)


def refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:
        READERS[name]()
    return str(caught.value)


def test_every_variable_of_the_sources_is_described() -> None:
    sources = [path for path in SOURCES if path.suffix in (".py", ".cpp", ".h", ".cu", ".cuh")]
    named = {name for path in sources for name in re.findall(r"HSTL_FAST_[A-Z_]+\b(?!\()", path.read_text("utf-8"))}
    described = {variable.name for variable in VARIABLES}
    assert {name for name in named if not name.endswith("_")} == {n for n in described if n.startswith("HSTL_FAST_")}
    builds = [(ROOT / "csrc" / name).read_text("utf-8") for name in ("build.py", "build_cuda.py")]
    read_by_setup = [name for text in builds for name in re.findall(r'environ(?:\.get\(|\[)"(\w+)"', text)]
    assert set(read_by_setup) == {variable.name for variable in VARIABLES if variable.build_time}


def test_every_description_is_complete() -> None:
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)
    for variable in VARIABLES:
        assert variable.meaning.endswith(".")
        assert variable.default
        assert variable.allowed == (", ".join(variable.choices) or variable.allowed) != ""


def test_every_variable_is_documented() -> None:
    lines = (ROOT / "docs" / "environment.md").read_text("utf-8").splitlines()
    for variable in VARIABLES:
        assert f"| `{variable.name}` | {variable.meaning} | {variable.default} | {variable.allowed} |" in lines
    documented = {line.split("`")[1] for line in lines if line.startswith("| `HSTL_FAST_")}
    assert documented == {variable.name for variable in VARIABLES if variable.name.startswith("HSTL_FAST_")}


def test_every_variable_of_run_time_has_a_reader() -> None:
    assert {variable.name for variable in RUN_TIME} == set(READERS)


def test_knows_names_and_the_standard_library_only() -> None:
    tree = ast.parse(Path(environment.__file__).read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {"hstl_fast.names"}


@pytest.mark.parametrize("value", [None, "", "  "])
def test_what_is_not_set_has_its_default(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in RUN_TIME:
        if value is not None and variable.name != "HSTL_FAST_TILES":
            monkeypatch.setenv(variable.name, value)
    read = {name: reader() for name, reader in READERS.items()}
    assert read == {
        "HSTL_FAST_BACKEND": "auto",
        "HSTL_FAST_ALGORITHM": "auto",
        "HSTL_FAST_PACKED_CACHE": 2048 << 20,
        "HSTL_FAST_MEMORY_CACHE": True,
        "HSTL_FAST_TILES": None,
        "HSTL_FAST_DEBUG": False,
        "HSTL_FAST_CPU_ISA": None,
    }


@pytest.mark.parametrize("variable", [v for v in RUN_TIME if v.choices], ids=lambda variable: variable.name)
def test_choices(variable: Variable, monkeypatch: pytest.MonkeyPatch) -> None:
    for choice in variable.choices:
        monkeypatch.setenv(variable.name, choice)
        assert READERS[variable.name]() == choice
    listed = f"{variable.name} must be one of {', '.join(variable.choices)}, got 'zzz'"
    assert refused(variable.name, "zzz", monkeypatch) == listed


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("HSTL_FAST_BACKEND", "cup", "cpu"),
        ("HSTL_FAST_BACKEND", "CPU", "cpu"),
        ("HSTL_FAST_ALGORITHM", "winnograd", "winograd"),
        ("HSTL_FAST_CPU_ISA", "avx521", "avx512"),
        ("HSTL_FAST_DEBUG", "flase", "false"),
    ],
)
def test_names_the_nearest(name: str, value: str, nearest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(name, value, monkeypatch).endswith(f"got {value!r}; did you mean {nearest!r}?")


@pytest.mark.parametrize(("name", "default"), FLAGS)
def test_flags(name: str, default: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for word, expected in {"1": True, "true": True, "YES": True, "On": True}.items():
        monkeypatch.setenv(name, word)
        assert READERS[name]() is expected
    for word in ("0", "false", "False", "NO", "off", " 0 "):
        monkeypatch.setenv(name, word)
        assert READERS[name]() is False
    for word in ("2", "maybe"):
        message = f"{name} must be 1 or 0 (true or false, yes or no, on or off), got {word!r}"
        assert refused(name, word, monkeypatch) == message


@pytest.mark.parametrize("value", ["much", "-1", "1.5", "1e3", "0x10", "２"])
def test_a_number_of_mib(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = f"HSTL_FAST_PACKED_CACHE must be a number of MiB (0: nothing is kept), got {value!r}"
    assert refused("HSTL_FAST_PACKED_CACHE", value, monkeypatch) == expected
    for text, number in {"0": 0, "3": 3 << 20, "100000": 100_000 << 20}.items():
        monkeypatch.setenv("HSTL_FAST_PACKED_CACHE", text)
        assert environment.packed_cache_bytes() == number


def test_a_path_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSTL_FAST_TILES", " my tiles.json")
    assert environment.tiles() == " my tiles.json"
    monkeypatch.setenv("HSTL_FAST_TILES", "")
    assert environment.tiles() is None


def test_all_faults_are_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.faults() == []
    monkeypatch.setenv("HSTL_FAST_MEMORY_CACHE", "maybe")
    monkeypatch.setenv("HSTL_FAST_PACKED_CACHE", "-1")
    memory, weights = sorted(environment.faults())
    assert "HSTL_FAST_MEMORY_CACHE must be" in memory
    assert "HSTL_FAST_PACKED_CACHE must be" in weights
