"""A backward pass that reaches every parameter of a network, whichever output the loss is computed from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hstl_fast._torch_private import is_tracing, under_transforms


def reach_all_parameters(embeddings: Tensor, logits: Tensor) -> Tensor:
    """Give the classifier a gradient also by a loss of embeddings alone, where processes train together.

    DistributedDataParallel waits for the gradient of every parameter, and raises an error in the second step if a loss
    of embeddings alone leaves the classifier without one. Nothing changes where torch.distributed is not initialised.

    A gradient of the embeddings brings one of zeros to the logits, and so to the classifier; a gradient of the logits
    reaches everything by itself.

    Args:
        embeddings: `[N, P, C]`.
        logits: `[N, P, K]`, computed from the embeddings.

    Returns:
        The embeddings.
    """
    if torch.compiler.is_compiling() or is_tracing() or under_transforms():
        return embeddings
    if not (torch.is_grad_enabled() and logits.requires_grad and dist.is_available() and dist.is_initialized()):
        return embeddings
    reaching: Tensor = _ReachingLogits.apply(embeddings, logits)
    return reaching


class _ReachingLogits(torch.autograd.Function):
    """The first tensor as it is; the gradient of the second is zeros."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, logits: Tensor) -> Tensor:
        ctx.logits = logits.shape, logits.dtype
        return embeddings.view_as(embeddings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        shape, dtype = ctx.logits
        return gradient, gradient.new_zeros((), dtype=dtype).expand(shape)
