"""Fixtures of the tests of the report; modules import matplotlib, which may be missing, after asking for it."""

import shutil
from pathlib import Path

import pytest

from benchmarks.report.__main__ import main
from tests.benchmarks.report import measured


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of results."""
    path = tmp_path / "results" / "abacus"
    measured.save(path, measured.results())
    return path


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    from tests.benchmarks.report.helpers import README

    path = tmp_path / "README.md"
    path.write_bytes(README.encode())
    return path


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a README and with results beside it, and with everything made from them, drawn once."""
    from tests.benchmarks.report.helpers import README

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
