"""What the operators share: the library they are declared in, element types, memory layout, and backward's one rule."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

_Function = TypeVar("_Function", bound=Callable[..., Any])

LIBRARY = torch.library.Library("hstl_fast", "DEF")
FIRST_DERIVATIVE_ONLY = (
    "the native operators have first derivatives only (no create_graph=True, torch.func.hessian or grad of grad); for "
    'second derivatives use backend="reference"'
)


_TAGS = tuple(filter(None, [getattr(torch.Tag, "cudagraph_unsafe", None)]))  # newer than torch 2.6


def define(schema: str) -> None:
    """Declare a private operator, which torch.compile may not put into a CUDA graph: kernels' tables are made when
    they are first needed, and kept outside the graph's memory."""
    LIBRARY.define(schema, tags=_TAGS)


_implementations: dict[tuple[str, str], Callable[..., Any]] = {}
"""By private operator and backend."""


def implements(name: str, backend: str) -> Callable[[_Function], _Function]:
    """A decorator for what computes the private operator `name` on a backend, which is the operator's last argument and
    not passed on."""

    def register(function: _Function) -> _Function:
        if not any(known == name for known, _ in _implementations):
            torch.library.impl(f"hstl_fast::{name}", ("CPU", "CUDA"), functools.partial(_compute, name), lib=LIBRARY)
        _implementations[name, backend] = function
        return function

    return register


def _compute(name: str, *arguments: Any) -> Any:
    *given, backend = arguments
    return _implementations[name, backend](*given)


def constant_when_compiled(function: _Function) -> _Function:
    """`torch.compiler.assume_constant_result`, without the second or two that importing the compiler takes."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# torch.compile of torch 2.6 cannot look into the question, and the answer never changes.
@constant_when_compiled
def _has_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def under_autocast(x: Tensor) -> Tensor:
    """`x` as autocast would hand it to a convolution: in autocast's type if it is on, but never float64."""
    device = x.device.type
    if x.dtype == torch.float64 or not _has_autocast(device) or not torch.is_autocast_enabled(device):
        return x
    return x.to(torch.get_autocast_dtype(device))


# What a compiler sees here holds for what it compiles: it compiles again for other transforms.
@constant_when_compiled
def under_transforms() -> bool:
    """Whether `torch.func` or forward-mode differentiation follows what is called now."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@constant_when_compiled
def refuse_transforms() -> None:
    """Raise RuntimeError under transforms: a compiler would look into the autograd.Function and lose its derivative."""
    if under_transforms():
        raise RuntimeError(
            "torch.compile cannot follow torch.func or torch.autograd.forward_ad through the native operators; use "
            'backend="reference", or do not compile'
        )


def channels_last(x: Tensor) -> Tensor:
    """`x` [n, c, t, h, w] with frames x rows x columns x channels in memory; no copy if it is so already."""
    if under_transforms():  # vmap knows no memory formats
        return x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    return x.contiguous(memory_format=torch.channels_last_3d)


def empty_map(like: Tensor, n: int, c: int, t: int, h: int, w: int) -> Tensor:
    """An uninitialised channels-last feature map [n, c, t, h, w] of like's type and device."""
    return torch.empty((n, c, t, h, w), dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def frames_of(x: Tensor, seq_lens: list[int]) -> list[int]:
    """The frames of every sequence in `x`: those packed, or one length for all."""
    return seq_lens if seq_lens else [x.shape[2]] * x.shape[0]


def dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` [n, c, t, h, w] as `dtype`, channels last."""
    return channels_last(x.to(dtype))


def is_native_map(x: Tensor) -> bool:
    """Whether native code computes in `x` as it is."""
    return x.dtype == computing_dtype(x.dtype) and x.is_contiguous(memory_format=torch.channels_last_3d)


def reference_dtype(x: Tensor) -> torch.dtype:
    """The type in which the reference computes: x's own on an accelerator, at least float32 on a CPU."""
    return computing_dtype(x.dtype) if x.device.type == "cpu" else x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which torch computes in the types it is given."""
    if _has_autocast(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A `backward` of an autograd.Function that refuses to be differentiated itself.

    `torch.autograd.function.once_differentiable` refuses only where the incoming gradient needs a gradient; what is
    saved may need one too, and would silently count as constant.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(FIRST_DERIVATIVE_ONLY)
        with torch.no_grad():
            return backward(ctx, *gradients)

    return refusing
