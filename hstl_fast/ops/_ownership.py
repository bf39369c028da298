"""Whether a gradient that backward was given may be changed, because nobody else refers to it."""

import functools
import sys
import threading
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from hstl_fast.ops._memory import is_lent
from hstl_fast.ops._shared import first_derivative_only, is_native_map, under_transforms


def is_ordinary(gradient: Tensor) -> bool:
    """Whether our kernels may write to it: nothing traces, batches or imitates what is computed."""
    if torch.compiler.is_compiling() or under_transforms() or is_legacy_batchedtensor(gradient):
        return False
    if type(gradient) is not Tensor or gradient.device.type not in ("cpu", "cuda"):
        return False
    if not gradient.is_contiguous(memory_format=torch.channels_last_3d):
        return False
    if gradient.device.type == "cpu" and not is_native_map(gradient):
        return False
    return gradient.untyped_storage().resizable() or is_lent(gradient)  # else NumPy's, or others', who are not counted


def references(x: Tensor) -> tuple[int, ...]:
    """How many refer to `x`: from Python, from torch, and to its memory; empty where torch cannot tell."""
    try:
        torch_references: int = x._use_count()  # type: ignore[attr-defined]
        of_memory = torch._C._storage_Use_Count(x.untyped_storage()._cdata)
    except AttributeError:
        return ()
    return sys.getrefcount(x), torch_references, of_memory


class _Counting(torch.autograd.Function):
    """Notes the references to the gradient it is given, called as the backward that asks is called."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[tuple[int, ...]]) -> Tensor:
        ctx.counts = counts
        return x.clone()

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.counts.append(references(grad))
        return grad, None


def references_of_engine() -> tuple[int, ...]:
    """`references`, asked in a backward under `first_derivative_only`, to a gradient that only autograd holds.

    They differ between versions of torch and Python, so they are counted once, in a thread without anybody's modes; and
    once more while somebody looks at Python's frames, as torch.compile does: a call then holds its arguments twice.
    """
    return _counted(_references_of_call(object()))


def _references_of_call(x: object) -> int:
    return sys.getrefcount(x)


@functools.cache
def _counted(references_of_call: int) -> tuple[int, ...]:
    counts: list[tuple[int, ...]] = []

    def count() -> None:
        x = torch.zeros(1, device="cpu", requires_grad=True)
        (2 * _Counting.apply(x, counts)).sum().backward()

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    return counts[0]


def are_of_engine(counts: tuple[int, ...]) -> bool:
    """Whether these are the `references` to a gradient that only autograd holds."""
    return counts != () and counts == references_of_engine()
