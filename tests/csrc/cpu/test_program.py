"""Programs of native functions: places, steps, and what is refused; and the copies that only programs make."""

import re

import pytest
import torch

from tests.csrc.cpu.helpers import CASES, Buffers, address, cpu
from tests.csrc.cpu.operators import grown, random_support


def test_a_program_runs_its_steps_in_the_memory_of_the_run() -> None:
    """A support grows twice; the second run has other memory, with other offsets from its bases."""
    case = CASES[0]
    size = case.frames * case.h * case.w
    program = cpu.Program([(0, 0), (1, 0), (2, 0), (2, size + 5)])
    for y, x in ((2, 1), (3, 2)):
        program.append("grow_support", [y, x, list(case.seq_lens), list(case.split), case.w, 1])
    assert program.nbytes > 0
    for share in (0.1, 0.01):
        x, memory = random_support(case.frames, case.h, case.w, share=share), Buffers()
        y = memory.output(2 * size + 5, dtype=torch.uint8)
        y[size : size + 5] = 0
        bases = [0, address(x), address(y)]
        if share == 0.1:
            program.run(bases)
        else:
            seconds = program.run_timed(bases)
            assert len(seconds) == 2
            assert all(s >= 0 for s in seconds)
        memory.check()
        once = grown(case, x)
        assert torch.equal(y[:size].view_as(x), once)
        assert torch.equal(y[size + 5 :].view_as(x), grown(case, once))


def test_place_0_is_no_memory_and_types_are_told_by_the_itemsize() -> None:
    x = torch.randn(2, 3, 4, 5)
    for dtype in (torch.float32, torch.float64):
        values = x.to(dtype)
        program = cpu.Program([(0, 0), (0, address(values)), (1, 0)])
        program.append("frame_maximum", [2, 0, 1, [2], 3, 4, 5, dtype.itemsize, 1, 0])
        maximum = torch.empty(3, 4, 5, dtype=dtype)
        program.run([0, address(maximum)])
        assert torch.equal(maximum, values.amax(0))


def test_wrong_programs_are_refused() -> None:
    program = cpu.Program([(0, 0), (2, 8)])
    with pytest.raises(ValueError, match="function: expected one that a program can call, got 'checksum'"):
        program.append("checksum", [])
    with pytest.raises(TypeError, match="copy_rows: expected 5 arguments"):
        program.append("copy_rows", [1, 1])
    with pytest.raises(TypeError, match="copy_rows: rows: "):
        program.append("copy_rows", [1, 1, "one", 1, 1])
    with pytest.raises(ValueError, match="copy_rows: expected places below 2, got 2"):
        program.append("copy_rows", [1, 2, 1, 1, 1])
    with pytest.raises(ValueError, match=re.escape("itemsize: expected 4 (float32) or 8 (float64), got 2")):
        program.append("frame_maximum", [1, 0, 1, [2], 3, 4, 5, 2, 1, 0])
    program.append("copy_rows", [1, 1, 0, 1, 1])
    with pytest.raises(ValueError, match="bases: expected at least 3 addresses, got 2"):
        program.run([0, 0])
    program.run([0, 0, 0])


def test_rows_are_copied_into_wider_ones(isa: str) -> None:
    x, memory = torch.arange(3 * 7, dtype=torch.uint8).view(3, 7), Buffers()
    y = memory.output(3, 10, dtype=torch.uint8)
    expected = y.clone()
    expected[:, 2:9] = x
    cpu.copy_rows(address(y) + 2, address(x), 3, 7, 10)
    memory.check()
    assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 1000, 700_001])
def test_the_support_of_silhouettes(count: int, dtype: torch.dtype, isa: str) -> None:
    x, memory = (torch.rand(count) * 3).to(torch.uint8).to(dtype), Buffers()
    if dtype.is_floating_point:
        x[::5] = -0.0
        x[1::5] = 1e-40
    y = memory.output(count, dtype=torch.uint8)
    cpu.find_support(address(y), address(x), count, dtype.itemsize, 2)
    memory.check()
    assert torch.equal(y.bool(), x != 0)
    assert y.max() <= 1
