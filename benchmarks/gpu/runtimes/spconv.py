"""spconv's submanifold convolutions on our grown support: the same function, as the output is 0 everywhere else."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.runtimes.runtime import imported, version_of, why_no_module
from hstl_fast import reference


class Spconv:
    """A sparse convolution for each region, whose features are gathered from the map and scattered again.

    Forward only: outside the support its gradient of the input is not the dense one that the others give.
    """

    name = "spconv on our support, float16"
    numerics = Numerics(torch.float16)
    precision = "float16"
    groups = frozenset({"arme forward"})

    def why_not(self, device: torch.device) -> str | None:
        """The reason why it cannot run here; None if it can."""
        return why_no_module(device, "spconv.pytorch")

    def version(self) -> str:
        """Its version."""
        return version_of("spconv", *(f"spconv-cu{number}" for number in (126, 124, 121, 120, 118)))

    def prepare(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The layer with sparse convolutions, whose sites are found from the first input."""
        return SparseLayer(module.layer, imported("spconv.pytorch"))


class SparseLayer(nn.Module):
    """An ARME layer by sparse convolutions."""

    def __init__(self, layer: Any, library: Any) -> None:
        super().__init__()
        self.layer, self.library = layer, library
        self.regions: list[Region] = []

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        layer = self.layer
        if not self.regions:
            self.regions = [Region(self.library, sites, layer.weight) for sites in grown_sites(x, layer.split)]
        maps = x.split(list(layer.split), 3)
        outputs = [region(rows, weight) for region, rows, weight in zip(self.regions, maps, layer.weight, strict=True)]
        return F.leaky_relu(torch.cat(outputs, 3), layer.negative_slope)


class Region:
    """The sites [n, 4] of a region, the convolution there, and the neighbours that the library finds once."""

    def __init__(self, library: Any, sites: Tensor, weights: Tensor) -> None:
        self.library, self.sites, self.at = library, sites, tuple(sites.long().unbind(1))
        self.c_out = weights.shape[1]
        self.convolution = library.SubMConv3d(weights.shape[2], self.c_out, 3, bias=False, indice_key="region")
        del self.convolution.weight
        self.kept: dict[str, Any] = {}

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """The sums of the region `[n, c_out, t, h, w]`."""
        n, _, t, h, w = x.shape
        maps = x.permute(0, 2, 3, 4, 1)
        given = self.library.SparseConvTensor(maps[self.at], self.sites, (t, h, w), n)
        given.indice_dict = self.kept
        self.convolution.weight = weight.permute(0, 2, 3, 4, 1).contiguous()
        y = maps.new_zeros(n, t, h, w, self.c_out)
        return y.index_put(self.at, self.convolution(given).features).permute(0, 4, 1, 2, 3)


def grown_sites(x: Tensor, split: list[int]) -> list[Tensor]:
    """The sites [n, 4] of every region, int32 sequence, frame, row and column, at which the output may be non-zero."""
    grown = reference.grow_support((x.detach() != 0).any(1), split)
    return [inside.nonzero().int().contiguous() for inside in grown.split(list(split), 2)]
