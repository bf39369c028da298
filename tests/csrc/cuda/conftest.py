"""Fixtures of the tests of the CUDA kernels, which run on the CPU in the emulator beside this."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.csrc.cuda import build


@pytest.fixture(scope="session")
def emulator_kernels() -> ModuleType:
    """The small kernels in kernels/ that show what the emulator does."""
    folder = build.HERE / "kernels"
    return build.load(build.build([folder / "kernels.cu", folder / "bindings.cpp"]), "hstl_fast_tests._kernels")


@pytest.fixture
def kernels(emulator_kernels: ModuleType) -> Iterator[ModuleType]:
    """The same with the emulator's default options, which the test may change."""
    before = emulator_kernels.shim.options()
    yield emulator_kernels
    emulator_kernels.shim.options(**before)
