"""The native head, separate FC and batch norm, against its definition in float64."""

import pytest
import torch

from tests.csrc.cpu.helpers import Buffers, Random, address, both_dtypes, cpu, error


@both_dtypes
@pytest.mark.parametrize(
    ("n", "parts", "c_in", "c_out"), [(1, 3, 128, 128), (6, 2, 40, 72), (5, 1, 1, 1), (9, 4, 33, 17)]
)
def test_parts_are_mapped_and_normalised(
    n: int, parts: int, c_in: int, c_out: int, dtype: torch.dtype, isa: str
) -> None:
    random, memory = Random(dtype), Buffers()
    x, w = random(n, parts, c_in), random(parts, c_in, c_out) / c_in**0.5
    mean, weight, bias = (random(c_out) for _ in range(3))
    variance = random(c_out).square() + 0.1
    y = memory.output(n, parts, c_out, dtype=dtype)
    tensors = (y, x, w, mean, variance, weight, bias)
    cpu.head(*map(address, tensors), 1e-5, n, parts, c_in, c_out, dtype.itemsize, 2)
    memory.check()
    mapped = torch.einsum("npi,pio->npo", x.double(), w.double())
    expected = (mapped - mean.double()) / (variance.double() + 1e-5).sqrt() * weight.double() + bias.double()
    assert error(y, expected) <= 4 * torch.finfo(dtype).eps
