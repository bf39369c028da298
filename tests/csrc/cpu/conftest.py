"""Fixtures of the tests of the native CPU functions."""

from collections.abc import Iterator

import pytest
import torch

from hstl_fast.backends.cpu import library

pytest.register_assert_rewrite("tests.csrc.cpu.helpers", "tests.csrc.cpu.operators")
# Every file of these tests skips itself where there is no native module.
INSTRUCTION_SETS = [] if library.cpu() is None else library.require_cpu().instruction_sets()


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """Let torch compute in one thread: the references are small convolutions, for which threads only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the instruction set in force; the test runs once for each that the machine has."""
    cpu = library.require_cpu()
    before = cpu.instruction_set()
    cpu.use_instruction_set(request.param)
    yield request.param
    cpu.use_instruction_set(before)
