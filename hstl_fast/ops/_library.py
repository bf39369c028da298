"""The library in which the private operators are declared, and what their public functions have in common."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hstl_fast import backends
from hstl_fast._torch_private import constant_when_compiled

LIBRARY = torch.library.Library("hstl_fast", "DEF")

# torch.compile may not put the operators into a CUDA graph: the kernels' tables are made when they are first needed,
# and kept outside the graph's memory; the triplet loss waits for labels. The tag is newer than torch 2.6.
TAGS = tuple(filter(None, [getattr(torch.Tag, "cudagraph_unsafe", None)]))


def define(schema: str) -> None:
    """Declare a private operator; its last argument names the backend that computes it."""
    LIBRARY.define(schema, tags=TAGS)
    name = schema.split("(")[0]
    torch.library.impl(f"hstl_fast::{name}", ("CPU", "CUDA"), functools.partial(_compute, name), lib=LIBRARY)


def _compute(name: str, *arguments: Any) -> Any:
    *given, backend = arguments
    return backends.implementation(name, backend)(*given)


# torch.compile of torch 2.6 cannot look into the question, and the answer never changes.
@constant_when_compiled
def has_autocast(device_type: str) -> bool:
    """Whether torch knows autocast for this kind of device."""
    return _has_autocast(device_type)


@functools.cache
def _has_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def under_autocast(x: Tensor) -> Tensor:
    """`x` as autocast would hand it to a convolution: in autocast's type if it is on, but never float64."""
    dtype = dtype_under_autocast(x)
    return x if x.dtype == dtype else x.to(dtype)


def dtype_under_autocast(x: Tensor) -> torch.dtype:
    """The type in which a convolution computes `x`."""
    device = x.device.type
    if x.dtype == torch.float64 or not has_autocast(device) or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which torch computes in the types it is given."""
    if has_autocast(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
