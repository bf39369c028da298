"""Batch norm over the batch of all processes, in any process group; that of torch takes tensors on GPUs only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hstl_fast.models import HSTL


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """Batch norm that takes, in training, the statistics of the inputs of all processes together.

    In evaluation it is plain batch norm. All processes of the default group have to call it at the same time; they may
    hold unequal numbers of values. Gradients of weight and bias are those of this process's outputs, as
    DistributedDataParallel expects them.

    Args:
        norm: The batch norm whose parameters, buffers and mode it shares.
    """

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise.

        Args:
            input: `[N, C, P]`.

        Returns:
            `[N, C, P]`.
        """
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalised.apply(input, self.weight, self.bias, self.eps)
        self._track(mean, variance * (count / (count - 1)))
        normalised: Tensor = output
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - factor).add_(factor * mean.to(self.running_mean.dtype))
        self.running_var.mul_(1 - factor).add_(factor * variance.to(self.running_var.dtype))


def use_global_batch_norm(model: HSTL) -> None:
    """Let a network take the statistics of the batch of all processes.

    Args:
        model: The network; its parameters and buffers stay the same tensors.
    """
    if not isinstance(model.norm, GlobalBatchNorm1d):
        model.norm = GlobalBatchNorm1d(model.norm)


@contextmanager
def plain_batch_norm(model: HSTL) -> Iterator[None]:
    """Give a network torch's own batch norm for a while, which the fast ways of evaluation know.

    Args:
        model: The network; its parameters and buffers stay the same tensors.

    Yields:
        Nothing.
    """
    given = model.norm
    if isinstance(given, GlobalBatchNorm1d):
        plain = nn.BatchNorm1d(given.num_features, given.eps, given.momentum)
        plain.weight, plain.bias = given.weight, given.bias
        plain.running_mean, plain.running_var = given.running_mean, given.running_var
        plain.num_batches_tracked = given.num_batches_tracked
        model.norm = plain.train(given.training)
    try:
        yield
    finally:
        model.norm = given


class _Normalised(torch.autograd.Function):
    """`[N, C, P]` normalised over N and P of all processes, with their mean, biased variance and number of values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(x)
        scale = (variance + eps).rsqrt()
        normalised = (x - mean[:, None]) * scale[:, None]
        ctx.save_for_backward(normalised, weight, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.set_materialize_grads(False)
        return normalised * weight[:, None] + bias[:, None], mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        normalised, weight, scale, count = ctx.saved_tensors
        of_bias, of_weight = gradient.sum((0, 2)), (gradient * normalised).sum((0, 2))
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)
        mean, slope = sums / count
        centred = gradient - mean[:, None] - normalised * slope[:, None]
        return centred * (weight * scale)[:, None], of_weight, of_bias, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean `[C]`, biased variance `[C]` and number of values of all processes.

    Each process gives its mean and the sum of squares around it: the difference of large sums would lose digits.
    """
    count = x.new_full((1,), x.shape[0] * x.shape[2])
    mean = x.mean((0, 2))
    squares = (x - mean[:, None]).square().sum((0, 2))
    own = torch.cat([mean, squares, count])
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    means, sums, counts = torch.stack(found).split([len(mean), len(mean), 1], 1)  # process c, process c, process 1
    total = counts.sum()
    whole = (counts * means).sum(0) / total
    variance = (sums + counts * (means - whole).square()).sum(0) / total
    return whole, variance, total
