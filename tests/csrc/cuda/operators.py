"""Calls of the CUDA module's functions by names of arguments, on memory that shows what is read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 3}
TF32, BYTES = 1, 4
# Bytes before and after every tensor; they are NaN in every type.
GUARD, GUARD_VALUE = 64, 255


def call(module: ModuleType, name: str, **arguments: Any) -> Any:
    """Call a function: a tensor stands for its address, None for no memory; the device is 0, the stream the default."""
    values = {"device": 0, "stream": 0, **arguments}
    expected = module.fields[name]
    assert values.keys() - {"stream"} == set(expected) - {"stream"}, name
    return getattr(module, name)(*(_address(values[field]) for field in expected))


def _address(value: Any) -> Any:
    if value is None:
        return 0
    return value.data_ptr() if isinstance(value, Tensor) else value


class Memory:
    """Tensors with guards on both sides, `offset` elements behind an address that is a multiple of 256."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._guarded: list[tuple[Tensor, int, int]] = []
        self._outputs: list[Tensor] = []

    def output(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor that has to be written: full of NaN, or of -1 or 255."""
        tensor = self._tensor(shape, dtype)
        tensor.view(torch.uint8).fill_(255)
        self._outputs.append(tensor)
        return tensor

    def given(self, value: Tensor) -> Tensor:
        """A copy of a tensor, dense in row-major order."""
        return self._tensor(value.shape, value.dtype).copy_(value)

    def check(self) -> None:
        """Assert that nothing was written outside and that no element of an output was left out."""
        for whole, begin, end in self._guarded:
            assert (whole[:begin] == GUARD_VALUE).all(), "wrote before a tensor"
            assert (whole[end:] == GUARD_VALUE).all(), "wrote past a tensor"
        for tensor in self._outputs:
            unwritten = tensor.isnan() if tensor.is_floating_point() else tensor == (255 if _is_byte(tensor) else -1)
            assert not unwritten.any(), "left an element unwritten"

    def _tensor(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        whole = torch.full((size + 2 * GUARD + 256 + self.offset * dtype.itemsize,), GUARD_VALUE, dtype=torch.uint8)
        begin = -(whole.data_ptr() + GUARD) % 256 + GUARD + self.offset * dtype.itemsize
        self._guarded.append((whole, begin, begin + size))
        return whole[begin : begin + size].view(dtype).view(shape)


def _is_byte(tensor: Tensor) -> bool:
    return tensor.dtype == torch.uint8


class Tables:
    """The tables that kernels read, for sequences of these lengths; `behind` frames follow the last one."""

    def __init__(self, lens: Sequence[int], split: Sequence[int] = (), behind: int = 0) -> None:
        starts, rows = _sums(lens), _sums(split)
        real = starts[-1]
        ends = [[begin, end - 1] for begin, end in pairwise(starts) for _ in range(end - begin)]
        of_frame = [n for n, count in enumerate(lens) for _ in range(count)]
        self.starts = _int32(starts)
        self.ends = _int32(ends + [[real, real + behind - 1]] * behind)
        self.sequence_of_frame = _int32(of_frame + [len(lens) - 1] * behind)
        self.regions = _int32([[row, count] for row, count in zip(rows, split, strict=False)])
        self.region_of_row = _int32([r for r, count in enumerate(split) for _ in range(count)])


def _sums(counts: Sequence[int]) -> list[int]:
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    return sums


def _int32(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_support(*shape: int, share: float, seed: int = 0) -> Tensor:
    """A support, uint8: 0 outside, and inside any other byte."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(shape, generator=generator) < share
    return torch.randint(1, 255, shape, generator=generator, dtype=torch.uint8) * inside
