"""The CUDA kernels' module for the CPU, built once a session."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.csrc.cuda import build


@pytest.fixture(scope="session")
def emulated() -> ModuleType:
    """hstl_fast._cuda, of which every thread runs on the CPU."""
    return build.cuda_module()


@pytest.fixture
def module(emulated: ModuleType) -> Iterator[ModuleType]:
    """The module; the emulator's options are put back afterwards."""
    before: dict[str, Any] = emulated.shim.options()
    yield emulated
    emulated.shim.options(**before)
