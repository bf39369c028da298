"""Whether a gradient that arrives in a backward pass may be overwritten, because no other code can see it.

`HSTL` knows its own chain of layers: every feature map goes to its own layers only, and so does every gradient of a
map. It says so by `Support.owns_gradient`, and only where no hook, mode or foreign layer looks on. An operator that
another caller calls never overwrites a gradient. docs/internals.md describes the rule.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from hstl_fast._torch_private import (
    is_batched,
    is_under_dispatch_mode,
    nodes_behind,
    note_inspection,
    under_transforms,
)
from hstl_fast.layout import is_native_map


class OwningFunction(torch.autograd.Function):
    """A Function whose nodes own the gradients that arrive, or pass owned gradients on."""

    NOTICES_INSPECTION: ClassVar[bool] = False


_Function = TypeVar("_Function", bound=OwningFunction)


def may_overwrite(ctx: Any, gradient: Tensor) -> bool:
    """Whether the backward pass of the node `ctx` may overwrite the gradient that it was given."""
    return ctx.owns_gradient and _is_ordinary(gradient)


def _is_ordinary(gradient: Tensor) -> bool:
    """Whether kernels can write to the gradient, and nothing traces, batches or imitates what is computed."""
    if torch.compiler.is_compiling() or under_transforms() or is_batched(gradient) or is_under_dispatch_mode():
        return False
    if type(gradient) is not Tensor or gradient.device.type not in ("cpu", "cuda"):
        return False
    if gradient.device.type == "cpu":
        return is_native_map(gradient)
    return gradient.is_contiguous(memory_format=torch.channels_last_3d)


def notices_inspection(function: type[_Function]) -> type[_Function]:
    """Decorate a Function through whose nodes owned gradients pass: a look behind a node ends the ownership.

    A caller who hooks such a node, or finds the nodes behind it, can see the gradients that arrive there.
    `function.NOTICES_INSPECTION` says whether torch lets this be noticed; without that, no gradient may be owned.
    """
    function.NOTICES_INSPECTION = note_inspection(function, _disown)
    return function


def _disown(node: Any) -> None:
    """End the ownership of the gradients that arrive at `node` and at every node behind it."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if hasattr(current, "owns_gradient"):
            current.owns_gradient = False
        pending.extend(nodes_behind(current))
