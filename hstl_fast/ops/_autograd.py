"""How an operator's autograd.Function is applied: as it is, or in a form that the transforms of torch.func follow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from hstl_fast._torch_private import constant_when_compiled, is_tracing, under_transforms
from hstl_fast.ops._ownership import OwningFunction

FIRST_DERIVATIVE_ONLY = (
    "the native operators have first derivatives only (no create_graph=True, torch.func.hessian or grad of grad); for "
    'second derivatives use backend="reference"'
)


class NativeFunction(OwningFunction):
    """An operator of this package as an autograd.Function, in a form that `_Transformed` can wrap for `torch.func`.

    A subclass keeps this contract:

    1. The inputs of `forward(ctx, ...)` are first tensors or None, the feature map foremost, then the other arguments.
    2. It saves for backward what it computed, the result foremost, and then its input tensors, in order. The result and
       the feature map are left out where `saves_result` and `saves_map` are False.
    3. It sets `ctx.arguments` to the other arguments, in order.
    4. `backward(ctx, grad)` reads nothing of `ctx` but what a `_Context` has as well.

    Attributes:
        saves_result: Whether the result is saved.
        saves_map: Whether the feature map is saved.
    """

    saves_result: ClassVar[bool] = True
    saves_map: ClassVar[bool] = True


def pad_with_none(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return what a `backward` returns: the gradients of the first inputs, and None for each of the others.

    Args:
        ctx: The context of the autograd.Function.
        *gradients: The gradients of the first inputs, in their order.

    Returns:
        As many entries as the Function has inputs.
    """
    return *gradients, *(None for _ in range(len(ctx.needs_input_grad) - len(gradients)))


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


@constant_when_compiled
def refuse_transforms() -> None:
    """Raise RuntimeError under transforms: a compiler would look into the autograd.Function and lose its derivative."""
    if under_transforms():
        raise RuntimeError(
            "torch.compile cannot follow torch.func or torch.autograd.forward_ad through the native operators; use "
            'backend="reference", or do not compile'
        )


def apply(function: type[NativeFunction], x: Tensor, *inputs: Any) -> Tensor:
    """`function` of `x` and its further inputs, `x` channels last."""
    if torch.compiler.is_compiling():
        refuse_transforms()
    elif under_transforms():
        return _transformed(function, x, *inputs)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    result: Tensor = function.apply(x, *inputs) if _is_recorded() else function.forward(_Context(), x, *inputs)
    return result


def is_followed() -> bool:
    """Whether autograd, a compiler, a tracer or a transform of torch.func has to know of a call."""
    return _is_recorded() or under_transforms()


def _is_recorded() -> bool:
    """Whether autograd, a compiler or a tracer has to know of the call; otherwise its cost is saved."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or is_tracing()


def _transformed(function: type[NativeFunction], *inputs: Any) -> Tensor:
    try:
        result: Tensor = _Transformed.apply(function, *inputs)[0]
    except RuntimeError as error:
        if "Functionalize rule" in str(error):
            raise RuntimeError(
                'the native operators cannot be called under torch.func.functionalize; use backend="reference"'
            ) from None
        raise
    return result


class _Context:
    """The `ctx` of a forward pass that autograd does not record, or of one under a transform of torch.func.

    No gradient is owned, and no output is changed in place.
    """

    owns_gradient = False
    probe = None
    activation_is_applied = False

    def __init__(
        self, saved: tuple[Any, ...] = (), arguments: tuple[Any, ...] = (), needed: tuple[Any, ...] = ()
    ) -> None:
        self.saved_tensors = saved
        self.arguments = arguments
        self.needs_input_grad = needed

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors


class _Transformed(torch.autograd.Function):
    """A NativeFunction for `torch.func`: slower to apply, so only used where a transform is active.

    Returns the result and all else that backward needs. `vmap` goes through the batch one by one.
    """

    @staticmethod
    def forward(function: type[NativeFunction], *inputs: Any) -> tuple[Tensor, ...]:
        context = _Context()
        result = function.forward(context, *inputs)
        made = context.saved_tensors[: int(not function.saves_map) - len(_tensors(inputs))]
        return (result, *made[int(function.saves_result) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, *rest = inputs
        tensors = _tensors(rest)
        ctx.arguments = tuple(rest[len(tensors) :])
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[int(not ctx.function.saves_result) :], *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        count = len(ctx.needs_input_grad) - 1 - len(ctx.arguments)
        made, inputs = ctx.saved_tensors[:-count], ctx.saved_tensors[-count:]
        wanted = tuple(
            needed and tensor is not None for needed, tensor in zip(ctx.needs_input_grad[1:], inputs, strict=False)
        )
        read = inputs[int(not ctx.function.saves_map) :]
        found = iter(_Gradients.apply(ctx.function, wanted, ctx.arguments, grad, *made, *read))
        gradients = tuple(next(found) if want else None for want in wanted)
        return None, *gradients, *(None for _ in ctx.arguments)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], int]:
        return _one_by_one(_Transformed, info.batch_size, in_dims, inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise RuntimeError(
            "the native operators have no forward-mode derivatives (torch.func.jvp, jacfwd and hessian, "
            'torch.autograd.forward_ad); use backend="reference"'
        )


class _Gradients(torch.autograd.Function):
    """The wanted gradients of a NativeFunction's tensors; differentiating them raises an error that says why."""

    @staticmethod
    def forward(
        function: type[NativeFunction], wanted: tuple[bool, ...], arguments: tuple[Any, ...], grad: Tensor, *saved: Any
    ) -> tuple[Tensor, ...]:
        gradients = function.backward(_Context(saved, arguments, wanted), grad)
        return tuple(gradient for gradient, want in zip(gradients, wanted, strict=False) if want)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> NoReturn:
        raise RuntimeError(FIRST_DERIVATIVE_ONLY)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], int]:
        return _one_by_one(_Gradients, info.batch_size, in_dims, inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise RuntimeError(FIRST_DERIVATIVE_ONLY)


def _tensors(inputs: Any) -> list[Tensor | None]:
    """The tensors (or absent ones) that `inputs` begin with."""
    tensors: list[Tensor | None] = []
    for value in inputs:
        if value is not None and not isinstance(value, Tensor):
            break
        tensors.append(value)
    return tensors


def _one_by_one(
    function: type[torch.autograd.Function], batch: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], int]:
    """Every element of a `vmap` batch by itself, the results stacked along a new first axis."""
    results = [
        function.apply(
            *(
                value.select(dim, i) if isinstance(value, Tensor) and dim is not None else value
                for value, dim in zip(inputs, in_dims, strict=True)
            )
        )
        for i in range(batch)
    ]
    return tuple(torch.stack(values) for values in zip(*results, strict=True)), 0
