"""HSTL in the style of OpenGait: layers of plain torch under the released names, as `accelerate` meets them.

Written from the definition of the layers alone. `width` divides the channels; 1 is the published network.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrameMaximum(nn.Module):
    """The newer call style: `(x, seqL=..., options={"dim": 2})`."""

    def forward(self, x: Tensor, seqL: Any = None, dim: int = 2, options: dict[str, int] | None = None) -> Any:
        dim = (options or {"dim": dim})["dim"]
        if seqL is None:
            return torch.max(x, dim=dim)
        return _per_sequence(x, seqL, dim, dim)


class OlderFrameMaximum(nn.Module):
    """The older call style: `(x, seqL, seq_dim=..., dim=...)`."""

    def forward(self, x: Tensor, seqL: Any, seq_dim: int = 2, dim: int = 2) -> Any:
        return torch.max(x, dim) if seqL is None else _per_sequence(x, seqL, seq_dim, dim)


def _per_sequence(x: Tensor, seqL: Any, seq_dim: int, dim: int) -> tuple[Tensor, Tensor]:
    start, values, indices = 0, [], []
    for length in seqL[0].data.cpu().numpy().tolist():
        value, index = x.narrow(seq_dim, start, length).max(dim)
        values.append(value)
        indices.append(index)
        start += length
    return torch.cat(values), torch.cat(indices)


class BareConv3d(nn.Module):
    def __init__(self, c_in: int, c_out: int, **options: Any) -> None:
        super().__init__()
        settings = {"kernel_size": 3, "stride": 1, "padding": 1, "bias": False, **options}
        self.conv3d = nn.Conv3d(c_in, c_out, **settings)

    def forward(self, ipts: Tensor) -> Tensor:
        return self.conv3d(ipts)


class BareConv2d(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class RegionConv(nn.Module):
    """ARME."""

    def __init__(self, c_in: int, c_out: int, split_param: Sequence[int]) -> None:
        super().__init__()
        self.split_param = list(split_param)
        self.m = len(self.split_param)
        self.conv3d = nn.ModuleList(BareConv3d(c_in, c_out) for _ in range(self.m))

    def forward(self, x: Tensor) -> Tensor:
        regions = x.split(self.split_param, dim=3)
        return F.leaky_relu(torch.cat([conv(rows) for conv, rows in zip(self.conv3d, regions)], dim=3), 0.01)


class PowerPool(nn.Module):
    """The strip pool: the generalised mean of equal strips."""

    def __init__(self, bin_num: Sequence[int], p: float = 6.5, eps: float = 1e-6) -> None:
        super().__init__()
        self.bin_num = list(bin_num)
        self.p = nn.Parameter(torch.ones(1) * p)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        pooled = []
        for bins in self.bin_num:
            strips = x.view(n, c, bins, -1)
            pooled.append(strips.clamp(min=self.eps).pow(self.p).mean(-1).pow(1.0 / self.p))
        return torch.cat(pooled, -1)


class RegionPool(nn.Module):
    """ASTP; `older` calls the frame maximum in the older style."""

    def __init__(
        self, c_in: int, c_out: int, split_param: Sequence[int], flag: bool = True, older: bool = False
    ) -> None:
        super().__init__()
        self.split_param = list(split_param)
        self.m = len(self.split_param)
        self.flag = flag
        self.older = older
        self.SP1 = OlderFrameMaximum() if older else FrameMaximum()
        self.hpp = nn.ModuleList(PowerPool([1]) for _ in range(self.m))
        if flag:
            self.proj = BareConv2d(c_in, c_out)

    def forward(self, x: Tensor, seqL: Any) -> Tensor:
        if self.older:
            x = self.SP1(x, seqL, seq_dim=2, dim=2)[0]
        else:
            x = self.SP1(x, seqL=seqL, options={"dim": 2})[0]
        if self.flag:
            x = self.proj(x)
        regions = x.split(self.split_param, dim=2)
        return torch.cat([pool(rows.contiguous()) for pool, rows in zip(self.hpp, regions)], dim=-1)


class GatedMaxima(nn.Module):
    """One region of FTA."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.FP_3 = nn.MaxPool3d((3, 1, 1), stride=(3, 1, 1), padding=(0, 0, 0))
        self.FP_5 = nn.MaxPool3d((5, 1, 1), stride=(3, 1, 1), padding=(1, 0, 0))
        self.fcs = nn.ModuleList(nn.Conv1d(c, c, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.FP_3(x), self.FP_5(x)])
        z = both.sum(0).mean(-1).mean(-1)
        shares = torch.stack([fc(z) for fc in self.fcs]).softmax(0)
        return (shares[..., None, None] * both).sum(0)


class FrameAggregation(nn.Module):
    """FTA."""

    def __init__(self, c: int, split_param: Sequence[int]) -> None:
        super().__init__()
        self.split_param = list(split_param)
        self.m = len(self.split_param)
        self.mma = nn.ModuleList(GatedMaxima(c) for _ in range(self.m))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([unit(rows) for unit, rows in zip(self.mma, x.split(self.split_param, dim=3))], dim=3)


class PartMaps(nn.Module):
    def __init__(self, parts: int, c_in: int, c_out: int) -> None:
        super().__init__()
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.zeros(parts, c_in, c_out)))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [p, n, c] to [p, n, c]."""
        return x.matmul(self.fc_bin)


class Shape(NamedTuple):
    """A published network: channels of the plain convolutions, and of every level with its split."""

    stem: tuple[int, ...]
    levels: tuple[tuple[tuple[int, ...], tuple[int, int]], ...]
    halved: bool


SHAPES = {
    "casia-b": Shape((32,), (((40, 24), (32, 64)), ((8, 32, 16, 8), (128, 128))), False),
    "oumvlp": Shape(
        (32, 32), (((4, 24, 4), (64, 64)), ((4, 4, 12, 8, 4), (128, 128)), ((4, 4, 12, 4, 4, 4), (256, 256))), True
    ),
    "gait3d": Shape(
        (32, 32), (((20, 12), (64, 64)), ((4, 16, 8, 4), (128, 128)), ((4, 4, 12, 8, 4), (256, 256))), True
    ),
}


class OpenGaitHSTL(nn.Module):
    """The whole network; silhouettes [n, 1, t, 64, 44] in 0..1 to embeddings [n, P, C] and logits [n, P, K]."""

    def __init__(self, preset: str, width: int = 1, classes: int = 6, older: bool = False) -> None:
        super().__init__()
        shape = SHAPES[preset]
        stem = [1, *(c // width for c in shape.stem)]
        pairs = itertools.pairwise(stem)
        self.arme1 = nn.Sequential(
            *(layer for i, o in pairs for layer in (BareConv3d(i, o), nn.LeakyReLU(inplace=True)))
        )
        last, rows = shape.levels[-1][1][1] // width, 32 if shape.halved else 64
        self.astp1 = RegionPool(stem[-1], last, [64], older=older)
        self.halve: Callable[[Tensor], Tensor] = nn.MaxPool3d((1, 2, 2), (1, 2, 2)) if shape.halved else nn.Identity()
        self.levels = range(2, 2 + len(shape.levels))
        c = stem[-1]
        for level, (split, channels) in zip(self.levels, shape.levels):
            first, second = (width_ // width for width_ in channels)
            projected = level != self.levels[-1]
            setattr(self, f"arme{level}", nn.Sequential(RegionConv(c, first, split), RegionConv(first, second, split)))
            setattr(self, f"astp{level}", RegionPool(second, last, split, projected, older))
            if level == 2:
                self.fta = FrameAggregation(second, split)
                self.astp2_fta = RegionPool(second, last, split, older=older)
            c = second
        self.TP = OlderFrameMaximum() if older else FrameMaximum()
        self.HPP = PowerPool([rows])
        parts = 1 + len(shape.levels[0][0]) + sum(len(split) for split, _ in shape.levels) + rows
        self.Head0 = PartMaps(parts, last, last)
        self.Bn = nn.BatchNorm1d(last)
        self.Head1 = PartMaps(parts, last, classes)

    def forward(self, sils: Tensor, seqL: Any = None) -> tuple[Tensor, Tensor]:
        parts = self.features(sils, seqL).permute(2, 0, 1).contiguous()  # p n c
        embeddings = self.Bn(self.Head0(parts).permute(1, 2, 0).contiguous())  # n c p
        logits = self.Head1(embeddings.permute(2, 0, 1).contiguous())
        return embeddings.transpose(1, 2), logits.transpose(0, 1)

    def features(self, sils: Tensor, seqL: Any) -> Tensor:
        x = sils if sils.shape[2] >= 3 else torch.cat([sils] * (3 if sils.shape[2] == 1 else 2), dim=2)
        x = self.arme1(x)
        parts = [self.astp1(x, seqL)]
        x = self.halve(x)
        for level in self.levels:
            x = getattr(self, f"arme{level}")(x)
            parts.append(getattr(self, f"astp{level}")(x, seqL))
            if level == 2:
                x = self.fta(x)
                seqL = None if seqL is None else [torch.div(seqL[0], 3, rounding_mode="floor")]
                parts.append(self.astp2_fta(x, seqL))
        parts.append(self.HPP(self.TP(x, seqL)[0]))
        return torch.cat(parts, dim=-1)
