"""The gradient of LeakyReLU in CUDA C++, run on the CPU: one rounding of the product, else exact."""

import math
from types import ModuleType

import pytest
import torch

from tests.csrc.cuda.operators import TYPES, Memory, call, normal


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 4096, 9001])
@pytest.mark.parametrize(("grad_offset", "y_offset"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_leaky_backward(size: int, grad_offset: int, y_offset: int, dtype: torch.dtype, module: ModuleType) -> None:
    slope = 0.01
    before, y = normal(size).to(dtype), normal(size, seed=1).to(dtype)
    y[:3] = torch.tensor([0.0, -0.0, math.nan], dtype=dtype)[:size]
    memory, of_y = Memory(grad_offset), Memory(y_offset)
    grad = memory.given(before)
    call(module, "leaky_backward", grad=grad, y=of_y.given(y), size=size, negative_slope=slope, type=TYPES[dtype])
    memory.check()
    of_y.check()
    scaled = (before.float() * torch.tensor(slope, dtype=torch.float32)).to(dtype)
    assert torch.equal(grad, before.where(y > 0, scaled))
