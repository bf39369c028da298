"""The native 2x2 maximum, against that of torch."""

import math

import pytest
import torch

from tests.csrc.cpu.helpers import Buffers, Random, address, both_dtypes, cpu
from tests.csrc.cpu.operators import random_support


@both_dtypes
@pytest.mark.parametrize(
    ("frames", "h", "w", "c"), [(3, 8, 44, 32), (2, 5, 7, 3), (1, 2, 2, 17), (4, 1, 9, 4), (2, 6, 3, 33)]
)
def test_2x2_maximum(frames: int, h: int, w: int, c: int, dtype: torch.dtype, isa: str) -> None:
    inside = random_support(frames, h, w, share=0.2)
    x, memory = Random(dtype)(frames, h, w, c) * inside[..., None], Buffers()
    some, whole = (memory.output(frames, h // 2, w // 2, c, dtype=dtype) for _ in range(2))
    support = torch.nn.functional.max_pool2d(inside[None].float(), 2)[0].to(torch.uint8) if h > 1 else inside[:, :0]
    cpu.max_pool(address(some), address(x), address(support), frames, h, w, c, dtype.itemsize, 2)
    cpu.max_pool(address(whole), address(x), 0, frames, h, w, c, dtype.itemsize, 1)
    memory.check()
    if some.numel():
        expected = torch.nn.functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        assert torch.equal(some, expected)
        assert torch.equal(whole, expected)


def test_2x2_maximum_keeps_nan() -> None:
    x, y = torch.ones(1, 2, 2, 20), torch.zeros(1, 1, 1, 20)
    x[0, 1, 0, 7] = math.nan
    cpu.max_pool(address(y), address(x), 0, 1, 2, 2, 20, 4, 1)
    assert y.flatten().isnan().nonzero().tolist() == [[7]]
