"""Fixtures of the tests of the emulator."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.csrc.cuda import build


@pytest.fixture(scope="session")
def emulator_kernels() -> ModuleType:
    """The small kernels beside this that show what the emulator does."""
    folder = Path(__file__).parent
    return build.load(build.build([folder / "kernels.cu", folder / "bindings.cpp"]), "hstl_fast_tests._kernels")


@pytest.fixture
def kernels(emulator_kernels: ModuleType) -> Iterator[ModuleType]:
    """The same with the emulator's default options, which the test may change."""
    before = emulator_kernels.shim.options()
    yield emulator_kernels
    emulator_kernels.shim.options(**before)
