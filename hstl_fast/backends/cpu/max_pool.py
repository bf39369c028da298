"""The 2x2 spatial maximum on the native CPU backend; only execution plans use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hstl_fast.backends.cpu.calls import Memory, NativeCall


@dataclass(slots=True, eq=False)
class MaxPoolCall(NativeCall):
    """The 2x2 maximum of every frame, stride 2."""

    name: ClassVar[str] = "max_pool"
    y: Memory
    x: Memory
    support: Memory
    frames: int
    h: int
    w: int
    c: int
    itemsize: int
    threads: int
