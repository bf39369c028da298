"""The outputs of a network whose backward pass reaches every parameter, whichever of them the loss is computed from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hstl_fast._torch_private import is_tracing, under_transforms


def reach_all_parameters(embeddings: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Let an output that the loss does not use have a gradient of zero, where processes train together.

    DistributedDataParallel waits for the gradient of every parameter, and raises an error in the second step if a loss
    of embeddings alone leaves the classifier without one. Nothing changes where torch.distributed is not initialised.

    Args:
        embeddings: `[N, P, C]`.
        logits: `[N, P, K]`, computed from the embeddings.

    Returns:
        The same values.
    """
    if torch.compiler.is_compiling() or is_tracing() or under_transforms():
        return embeddings, logits
    if not (torch.is_grad_enabled() and logits.requires_grad and dist.is_available() and dist.is_initialized()):
        return embeddings, logits
    outputs: tuple[Tensor, Tensor] = _BothOutputs.apply(embeddings, logits)
    return outputs


class _BothOutputs(torch.autograd.Function):
    """Two tensors as they are; autograd makes the gradient of one that is not used zeros."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        return embeddings.view_as(embeddings), logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients
