"""The native supports, against the maxima of torch."""

import pytest
import torch

from tests.csrc.cpu.helpers import CASES, FTA_CASES, Buffers, Case, address, cpu
from tests.csrc.cpu.operators import grown, random_support, window_support

SUPPORT_CASES = [*CASES, Case((3, 2, 1), (9, 2, 1, 3), 31, 1, 1), Case((2,), (3,), 5000, 1, 1)]


@pytest.mark.parametrize("case", SUPPORT_CASES, ids=str)
def test_supports_grow_inside_region_and_sequence(case: Case, isa: str) -> None:
    x, memory = random_support(case.frames, case.h, case.w), Buffers()
    y = memory.output(*x.shape, dtype=torch.uint8)
    cpu.grow_support(address(y), address(x), case.seq_lens, case.split, case.w, 2)
    memory.check()
    assert torch.equal(y, grown(case, x))


def test_supports_of_many_frames_grow_on_several_threads() -> None:
    case = Case((150, 57, 93), (40, 24), 44, 1, 1)
    x, y = random_support(case.frames, case.h, case.w, share=0.001), torch.empty(0)
    for threads in (1, 2, 3):
        y = torch.full_like(x, 9)
        cpu.grow_support(address(y), address(x), case.seq_lens, case.split, case.w, threads)
        assert torch.equal(y, grown(case, x))


def test_supports_of_many_short_sequences() -> None:
    """Sequences of no window among them; the frames are those of several threads' chunks."""
    lens = tuple(1 + i % 5 for i in range(700))
    case = Case(lens, (7, 9), 44, 1, 1)
    x, memory = random_support(case.frames, case.h, case.w, share=0.02), Buffers()
    y, windows = memory.output(*x.shape, dtype=torch.uint8), window_support(case, x)
    joined = memory.output(*windows.shape, dtype=torch.uint8)
    cpu.grow_support(address(y), address(x), case.seq_lens, case.split, case.w, 3)
    cpu.window_support(address(joined), address(x), case.seq_lens, case.h, case.w, 3)
    memory.check()
    assert torch.equal(y, grown(case, x))
    assert torch.equal(joined, windows)


@pytest.mark.parametrize("case", FTA_CASES, ids=str)
def test_support_of_a_window_joins_its_frames(case: Case, isa: str) -> None:
    x, memory = random_support(case.frames, case.h, case.w, share=0.2), Buffers()
    expected = window_support(case, x)
    y = memory.output(*expected.shape, dtype=torch.uint8)
    cpu.window_support(address(y), address(x), case.seq_lens, case.h, case.w, 2)
    memory.check()
    assert torch.equal(y, expected)


@pytest.mark.parametrize(("frames", "h", "w"), [(3, 8, 44), (2, 5, 7), (1, 2, 2), (4, 1, 9), (2, 64, 45)])
def test_support_of_the_2x2_maximum(frames: int, h: int, w: int, isa: str) -> None:
    x, memory = random_support(frames, h, w, share=0.2), Buffers()
    y = memory.output(frames, h // 2, w // 2, dtype=torch.uint8)
    cpu.max_pool_support(address(y), address(x), frames, h, w)
    memory.check()
    if y.numel():
        assert torch.equal(y, torch.nn.functional.max_pool2d(x[None].float(), 2)[0].to(torch.uint8))
