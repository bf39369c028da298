"""The CUDA kernels' module for the CPU, built once a session."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.csrc.cuda import build
from tests.csrc.cuda.convolutions import ORDERS


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


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def ordered(module: ModuleType, request: pytest.FixtureRequest) -> ModuleType:
    """The module with copies and threads in some order, on a GPU of the capability that the test's file names."""
    module.shim.options(capability=request.module.CAPABILITY, **request.param)
    return module
