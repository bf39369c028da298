"""GaitGL in the style of OpenGait: layers of plain torch under the released names, as `accelerate` meets them.

Written from the published description of the network and the names of its parameters alone.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.opengait import BareConv3d, FrameMaximum, PartMaps, PowerPool


class GlobalLocal(nn.Module):
    """One convolution of the whole map beside one of equal strips of rows, whose weights the strips share."""

    def __init__(self, c_in: int, c_out: int, halving: int, fm_sign: bool = False) -> None:
        super().__init__()
        self.halving = halving
        self.fm_sign = fm_sign
        self.global_conv3d = BareConv3d(c_in, c_out)
        self.local_conv3d = BareConv3d(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        whole, strips = self.global_conv3d(x), self.strips(x)
        if self.fm_sign:
            return F.leaky_relu(torch.cat([whole, strips], dim=3))
        return F.leaky_relu(whole) + F.leaky_relu(strips)

    def strips(self, x: Tensor) -> Tensor:
        """Return the convolutions of the strips, one below the other."""
        if self.halving == 0:
            return self.local_conv3d(x)
        rows = x.shape[3] // 2**self.halving
        return torch.cat([self.local_conv3d(strip) for strip in x.split(rows, dim=3)], dim=3)


class ActivatedSum(GlobalLocal):
    """The form that activates the sum of both convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        whole, strips = self.global_conv3d(x), self.strips(x)
        return F.leaky_relu(torch.cat([whole, strips], dim=3) if self.fm_sign else whole + strips)


class Shape(NamedTuple):
    """A published network: its channels, the halving of its strips, and whether its layers come in pairs."""

    channels: tuple[int, ...]
    halving: int
    in_pairs: bool


SHAPES = {
    "casia-b": Shape((32, 64, 128), 3, False),
    "oumvlp": Shape((32, 64, 128, 256), 1, True),
}


class OpenGaitGL(nn.Module):
    """The whole network; silhouettes [n, 1, t, 64, 44] in 0..1 to embeddings [n, C, 64] and logits [n, K, 64]."""

    def __init__(
        self, name: str, width: int = 1, classes: int = 6, layer: type[GlobalLocal] = GlobalLocal, rows: int = 64
    ) -> None:
        super().__init__()
        shape = SHAPES[name]
        channels = [c // width for c in shape.channels]
        c, last = channels[0], channels[-1]
        self.conv3d = nn.Sequential(*_stage(1, c), *(_stage(c, c) if shape.in_pairs else ()))
        self.LTA = nn.Sequential(*_stage(c, c, kernel_size=(3, 1, 1), stride=(3, 1, 1), padding=(0, 0, 0)))
        self.MaxPool0 = nn.MaxPool3d(kernel_size=(1, 2, 2), stride=(1, 2, 2))
        if shape.in_pairs:
            pairs = [_pair(layer, i, o, shape.halving, o == last) for i, o in itertools.pairwise(channels)]
            self.GLConvA0, self.GLConvA1, self.GLConvB2 = pairs
        else:
            self.GLConvA0 = layer(c, channels[1], shape.halving)
            self.GLConvA1 = layer(channels[1], last, shape.halving)
            self.GLConvB2 = layer(last, last, shape.halving, fm_sign=True)
        self.TP = FrameMaximum()
        self.HPP = PowerPool([rows])
        self.Head0 = PartMaps(rows, last, last)
        self.Bn = nn.BatchNorm1d(last)
        self.Head1 = PartMaps(rows, last, classes)

    def forward(self, sils: Tensor, seqL: Any = None) -> tuple[Tensor, Tensor]:
        if sils.shape[2] < 3:
            sils = sils.repeat(1, 1, 3 if sils.shape[2] == 1 else 2, 1, 1)
        maps = self.GLConvA0(self.LTA(self.conv3d(sils)))
        maps = self.GLConvB2(self.GLConvA1(self.MaxPool0(maps)))
        parts = self.HPP(self.TP(maps, seqL=seqL, options={"dim": 2})[0])
        features = self.Bn(_by_part(self.Head0, parts))
        return features, _by_part(self.Head1, features)


def _stage(c_in: int, c_out: int, **options: Any) -> Sequence[nn.Module]:
    return BareConv3d(c_in, c_out, **options), nn.LeakyReLU(inplace=True)


def _pair(layer: type[GlobalLocal], c_in: int, c_out: int, halving: int, fm_sign: bool) -> nn.Sequential:
    return nn.Sequential(layer(c_in, c_out, halving), layer(c_out, c_out, halving, fm_sign))


def _by_part(maps: PartMaps, x: Tensor) -> Tensor:
    """Apply maps of [p, n, c] to `x` [n, c, p]."""
    return maps(x.permute(2, 0, 1)).permute(1, 2, 0)
