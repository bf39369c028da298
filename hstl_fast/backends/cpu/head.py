"""The head on the native CPU backend: batch norm of a linear map of each part. Only execution plans use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from hstl_fast.backends.cpu.calls import Memory, NativeCall


class Norm(NamedTuple):
    """The tensors `[c_out]` of a batch norm with fixed statistics."""

    running_mean: Memory | None
    running_var: Memory | None
    weight: Memory | None
    bias: Memory | None


@dataclass(slots=True, eq=False)
class HeadCall(NativeCall):
    """Batch norm with fixed statistics of a linear map per part: `x` `[n, parts, c_in]` to `y` `[n, parts, c_out]`."""

    name: ClassVar[str] = "head"
    y: Memory
    x: Memory
    fc: Memory
    norm: Norm
    eps: float
    n: int
    parts: int
    c_in: int
    c_out: int
    itemsize: int
    threads: int
