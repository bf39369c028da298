"""HSTL as the specification reads, in plain torch: eager baseline, input of torch.compile, float64 reference.

Maps are contiguous, sequences have one length, and no operator of this package is used.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hstl_fast import HSTL, reference
from hstl_fast.nn import ARME, ASTP, FTA, StripPool


class PlainLayer(nn.Module):
    """A layer's parameters under the definition of its operator."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for `x` `[n, c, t, h, w]`."""
        layer = self.layer
        if isinstance(layer, ARME):
            return reference.arme(x, layer.weight, layer.split, negative_slope=layer.negative_slope)
        if isinstance(layer, ASTP):
            return reference.astp(x, layer.proj, layer.p, layer.split)
        if isinstance(layer, StripPool):
            return reference.strip_pool(x, layer.p, layer.bins)
        assert isinstance(layer, FTA)
        return reference.fta(x, layer.weight, layer.bias, layer.split)


class PlainHSTL(nn.Module):
    """The parameters of an `HSTL` in a network of plain layers; modules and parameters stand in the same order."""

    def __init__(self, model: HSTL) -> None:
        super().__init__()
        self.pool = model.config.pool
        self.stem = nn.ModuleList(PlainLayer(layer) for layer in model.stem)
        self.stages = nn.ModuleList(
            nn.ModuleList(PlainLayer(layer) for layer in stage.children()) for stage in model.stages
        )
        self.fta = PlainLayer(model.fta)
        self.pools = nn.ModuleList(PlainLayer(layer) for layer in model.pools)
        self.strips = PlainLayer(model.strips)
        self.parts = model.parts
        self.norm = model.norm
        self.classifier = model.classifier
        self.train(model.training)

    def forward(self, silhouettes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings `[n, parts, c]` and logits `[n, parts, k]` (None in evaluation).

        silhouettes: `[n, t, 64, 44]` uint8, t at least 3.
        """
        x = silhouettes[:, None].to(self.norm.weight.dtype) / 255
        pools = iter(self.pools)
        for layer in self.stem:
            x = layer(x)
        pooled = [next(pools)(x)]
        if self.pool:
            x = F.max_pool3d(x, (1, 2, 2))
        for i, stage in enumerate(self.stages):
            for layer in stage.children():
                x = layer(x)
            pooled.append(next(pools)(x))
            if i == 0:
                x = self.fta(x)
                pooled.append(next(pools)(x))
        pooled.append(self.strips(x))
        parts = self.parts(torch.cat(pooled, 2).transpose(1, 2))
        embeddings = self.norm(parts.transpose(1, 2)).transpose(1, 2)
        return embeddings, self.classifier(embeddings) if self.training else None


def frozen(network: nn.Module, training: bool) -> nn.Module:
    """A copy of the network in this mode; its parameters need gradients in training only."""
    return copy.deepcopy(network).requires_grad_(training).train(training)


def plain(network: nn.Module) -> nn.Module:
    """The plain form of `HSTL` or of one of its layers; parameters are shared."""
    return PlainHSTL(network) if isinstance(network, HSTL) else PlainLayer(network)


def feature_maps(model: HSTL, clip: Tensor) -> dict[str, Tensor]:
    """The inputs `[1, c, t, h, w]` of all layers of `model` for the clip `[t, 64, 44]`, by module name."""
    network = PlainHSTL(model)
    maps: dict[str, Tensor] = {}
    names = {id(module): name for name, module in model.named_modules()}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        maps[names[id(module.layer)]] = arguments[0]

    for module in network.modules():
        if isinstance(module, PlainLayer):
            module.register_forward_pre_hook(keep)
    with torch.no_grad():
        network(clip[None])
    return maps
