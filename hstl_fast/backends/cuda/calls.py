"""Prepared calls of the functions of `hstl_fast._cuda`: where they are enqueued, their types and their workspaces."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from hstl_fast._torch_private import raw_stream
from hstl_fast.backends import calls
from hstl_fast.backends.cuda import library
from hstl_fast.backends.gpu import precision

# The numbers of csrc/cuda/operators.h.
FLOAT32, TF32 = 0, 1
TYPES = {torch.float32: FLOAT32, torch.float16: 2, torch.bfloat16: 3, torch.uint8: 4}


@dataclass(slots=True, eq=False)
class NativeCall(calls.NativeCall):
    """A call of a function of csrc/cuda/operators.h."""

    @staticmethod
    def binary() -> ModuleType:
        """The binary whose function is called."""
        return library.require_cuda()


class Place(NamedTuple):
    """The place where kernels are enqueued: the GPU's index, and its current stream."""

    device: int
    stream: int


def place_of(x: Tensor) -> Place:
    """The device of a tensor, and the stream on which torch computes there now.

    Raises:
        RuntimeError: the device cannot run the kernels.
    """
    device = x.device
    if device.type == library.device_type() == "cuda":
        reason = library.why_not_this_gpu(device)
        if reason is not None:
            raise RuntimeError(f"backend 'cuda' cannot run on {device}: {reason}")
        return Place(device.index, raw_stream(device))
    if device.type != library.device_type():
        raise RuntimeError(f"backend 'cuda' cannot run on {device}")
    return Place(0, 0)


def type_of(x: Tensor) -> int:
    """The number of a map's type."""
    return TYPES[x.dtype]


def product_type_of(x: Tensor) -> int:
    """The number of a map's type, which says how it is multiplied: float32 as TF32 where torch is asked for that."""
    return TF32 if x.dtype == torch.float32 and precision(x.device) == "tf32" else TYPES[x.dtype]


def workspace(size: int, like: Tensor) -> Tensor:
    """Scratch memory on the device of a tensor. Like any temporary of torch's it is reused in the stream's order."""
    return torch.empty(size, dtype=torch.uint8, device=like.device)
