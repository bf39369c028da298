"""The context and the scalars that every launch needs."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast._torch_private import triton_allocator
from hstl_fast.backends.gpu import why_not_this_gpu


@triton.jit
def wide(i):
    """A scalar in 64 bits, whether it is Python's, a constant of the compilation, or of the kernel."""
    return tl.zeros([], tl.int64) + i


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """A context in which kernels are launched on x's device; in Triton's interpreter that is the CPU.

    Raises:
        RuntimeError: x's device is a GPU that cannot run the kernels, though the current GPU may.
    """
    if x.device.type != "cuda":
        return nullcontext()
    reason = _why_not_on(x.device)
    if reason is not None:
        raise RuntimeError(f"backend 'triton' cannot run on {x.device}: {reason}")
    return torch.cuda.device(x.device)


@functools.cache
def _why_not_on(device: torch.device) -> str | None:
    return why_not_this_gpu(device)


@contextmanager
def descriptor_memory(device: torch.device) -> Iterator[None]:
    """A context in which kernels find the memory for their tensor descriptors; the allocator before is put back."""
    before = triton_allocator()
    triton.set_allocator(lambda size, _alignment, _stream: torch.empty(size, dtype=torch.int8, device=device))
    try:
        yield
    finally:
        triton.set_allocator(before)
