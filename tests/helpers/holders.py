"""Ways in which user hooks keep a gradient that native code may otherwise change: each calls `keep` with it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def hook(y: Tensor, keep: Callable[[Tensor], Any]) -> None:
    y.register_hook(keep)


def node_hook(y: Tensor, keep: Callable[[Tensor], Any]) -> None:
    assert y.grad_fn is not None
    y.grad_fn.register_prehook(lambda gradients: keep(gradients[0]))


def view_in_hook(y: Tensor, keep: Callable[[Tensor], Any]) -> None:
    y.register_hook(lambda g: keep(g.view_as(g)))


def memory_in_hook(y: Tensor, keep: Callable[[Tensor], Any]) -> None:
    y.register_hook(lambda g: keep(torch.empty(0, dtype=g.dtype).set_(g.untyped_storage(), 0, g.shape, g.stride())))


def array_in_hook(y: Tensor, keep: Callable[[Tensor], Any]) -> None:
    y.register_hook(lambda g: keep(torch.from_numpy(g.numpy())))


HOLDERS = [hook, node_hook, view_in_hook, memory_in_hook, array_in_hook]
