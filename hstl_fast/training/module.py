"""The network together with its losses, as one module that DistributedDataParallel can wrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hstl_fast.losses import all_processes, cross_entropy, triplet_loss
from hstl_fast.models import HSTL
from hstl_fast.training.config import LossConfig


class TrainingModule(nn.Module):
    """An HSTL network and the losses that it is trained with.

    Every parameter that takes part has a gradient, whatever the losses are: without the cross entropy the classifier is
    neither computed nor trained.

    Args:
        model: The network; its classifier is replaced by an unused one where the cross entropy is left out.
        loss: Weights and parameters of the losses; a weight of zero leaves a loss out.
        processes: Number of processes whose gradients are averaged. The triplet loss is that of their batches together.
    """

    def __init__(self, model: HSTL, loss: LossConfig, processes: int = 1) -> None:
        super().__init__()
        self.model, self.loss, self.processes = model, loss, processes
        # Called with the name of each stage of `forward` when it has ended.
        self.mark: Callable[[str], None] = _ignore
        if not loss.cross_entropy:
            model.classifier = UnusedClassifier(model.classifier.weight)  # type: ignore[assignment]

    def forward(self, silhouettes: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch, in float32 at least.

        Args:
            silhouettes: `[n, T, 64, 44]` of this process.
            targets: The class of each, int64 `[n]`.

        Returns:
            Scalars: `loss`, the one to minimise, and without gradients `triplet`, which is that of all processes
            together, and `cross_entropy`, as far as they take part.
        """
        embeddings, logits = self.model(silhouettes)
        self.mark("forward")
        with torch.autocast(embeddings.device.type, enabled=False):
            found: dict[str, Tensor] = {}
            if self.loss.triplet:
                found["triplet"] = self._triplet(embeddings, targets)
            if self.loss.cross_entropy:
                found["cross_entropy"] = cross_entropy(logits, targets, self.loss.scale, self.loss.smoothing)
            weighted = [getattr(self.loss, name) * value for name, value in found.items()]
            loss = weighted[0] if len(weighted) == 1 else weighted[0] + weighted[1]
        self.mark("loss")
        return {"loss": loss, **{name: value.detach() for name, value in found.items()}}

    def _triplet(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        if self.processes > 1:
            embeddings, targets = all_processes(_Amplified.apply(embeddings, self.processes), targets)
        return triplet_loss(embeddings, targets, self.loss.margin)


class UnusedClassifier(nn.Module):
    """A classifier that keeps its weights and computes nothing.

    Args:
        weight: The weights, which get no gradient.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Give no logits.

        Args:
            x: Embeddings `[N, P, C]`.

        Returns:
            `[N, P, 0]`.
        """
        return x.detach()[..., :0]


class _Amplified(torch.autograd.Function):
    """The input; its gradient is multiplied by a factor.

    Each process takes its own rows of the gradient of a loss of all processes, so that the gradient of a parameter is
    the sum over processes, of which DistributedDataParallel takes the mean.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def _ignore(stage: str) -> None:
    """Do not measure."""
