"""The head of a network: a linear map of each part, then batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hstl_fast._torch_private import children_of, with_children
from hstl_fast._untouched import has_own_forward
from hstl_fast.models.eligibility import Network, has_plain_norm
from hstl_fast.ops._library import without_autocast


def apply_head(network: Network, pooled: list[Tensor], batch_statistics: bool) -> Tensor:
    """Compute the embeddings of pooled parts.

    Args:
        network: An `HSTL`, whose `parts` and `norm` are applied.
        pooled: The parts of every level, in order, each `[N, C, m]`.
        batch_statistics: Whether the norm takes the statistics of the batch, or else its own.

    Returns:
        Embeddings `[N, P, C]`.

    Raises:
        TypeError: A norm that was put in place of batch norm does not map `[N, C, P]` to the same shape.
        RuntimeError: A norm in training mode is to be evaluated, and has a forward or bound method on the instance.
    """
    x = torch.cat(pooled, 2)
    with without_autocast(x):
        mapped: Tensor = network.parts(x.transpose(1, 2)).transpose(1, 2)  # n c p
        return _normalised(network, mapped, batch_statistics).transpose(1, 2)


def _normalised(network: Network, x: Tensor, batch_statistics: bool) -> Tensor:
    norm = network.norm
    if not batch_statistics and has_plain_norm(network):
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, variance, weight, bias = (None if tensor is None else tensor.to(x.dtype) for tensor in tensors)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, norm.eps)
    given = next(norm.parameters(), x).dtype
    y = (norm if batch_statistics else _in_evaluation(norm))(x.to(given))
    if not isinstance(y, Tensor) or y.shape != x.shape:
        got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"norm must map [N, C, P] to the same shape, {list(x.shape)}, got {got} of {type(norm).__name__}"
        )
    return y.to(x.dtype)


def _calls_the_original(module: nn.Module) -> bool:
    """Whether a copy of the module may still call the original, by a forward or method that is kept on the instance."""
    if has_own_forward(module):
        return True
    kept = [value for value in vars(module).values() if callable(value)]
    return any(isinstance(getattr(f, "__self__", None), nn.Module) or getattr(f, "__closure__", None) for f in kept)


def _in_evaluation(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, sharing parameters, buffers and hooks; the module's own mode is not touched."""
    if not any(inner.training for inner in module.modules()):
        return module
    if _calls_the_original(module):
        raise RuntimeError(
            "norm must have no forward or bound method on the instance to be evaluated while it is in training mode, "
            f"got one in a {type(module).__name__}; call model.eval() first"
        )
    children = children_of(module).items()
    copied = with_children(module, {name: None if child is None else _in_evaluation(child) for name, child in children})
    copied.training = False
    return copied
