"""What every launch needs."""

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def wide(i):
    """A scalar in 64 bits, whether it is Python's, a constant of the compilation, or of the kernel."""
    return tl.zeros([], tl.int64) + i


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """A context in which kernels are launched on x's device; in Triton's interpreter that is the CPU."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def descriptor_memory(x: Tensor) -> AbstractContextManager[object]:
    """A context in which kernels find the memory for their tensor descriptors."""
    if x.device.type != "cuda":
        return nullcontext()
    triton.set_allocator(lambda size, _alignment, _stream: torch.empty(size, dtype=torch.int8, device=x.device))
    return nullcontext()
