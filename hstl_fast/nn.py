"""HSTL's layers as modules over `hstl_fast.functional`.

`seq_lens` and `support` of every `forward` are those of the function. A list of row counts named `split` sums to the
rows of the feature map; each entry is one region with parameters of its own.
"""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from hstl_fast import functional

INITIAL_POWER = 6.5
"""Where every power of the generalised mean starts."""


class Layer(nn.Module):
    """What all modules of this package have in common."""

    def __prepare_scriptable__(self) -> NoReturn:
        """Called by `torch.jit.script`, which knows too little of Python for the operators' checks."""
        raise RuntimeError(
            f"{type(self).__name__} cannot be compiled by torch.jit.script; use torch.compile or torch.export.export"
        )


class ARME(Layer):
    """Adaptive region-based motion extractor: each region convolved with its own 3x3x3 weights, then LeakyReLU.

    `[N, C_in, T, H, W]` to `[N, C_out, T, H, W]`; see `hstl_fast.functional.arme`. `negative_slope=None` leaves the
    activation out. `weight` `[m, C_out, C_in, 3, 3, 3]` starts Xavier-uniform, region by region.
    """

    def __init__(
        self, in_channels: int, out_channels: int, split: Sequence[int], negative_slope: float | None = 0.01
    ) -> None:
        super().__init__()
        self.split = list(split)
        self.negative_slope = negative_slope
        self.weight = nn.Parameter(torch.empty(len(self.split), out_channels, in_channels, 3, 3, 3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(
        self, x: Tensor, seq_lens: Sequence[int] | Tensor | None = None, support: Tensor | None = None
    ) -> Tensor:
        """The regions' convolutions of `x`."""
        return functional.arme(
            x, self.weight, self.split, negative_slope=self.negative_slope, seq_lens=seq_lens, support=support
        )

    def extra_repr(self) -> str:
        """Sizes shown by `print(module)`."""
        _, c_out, c_in = self.weight.shape[:3]
        return f"{c_in}, {c_out}, split={self.split}, negative_slope={self.negative_slope}"


class ASTP(Layer):
    """Adaptive spatio-temporal pooling: frame maximum, projection, generalised mean of each region.

    `[N, C_in, T, H, W]` to `[N, C_out, m]`; see `hstl_fast.functional.astp`. `out_channels=None` leaves the projection
    out (`proj` is then None). `proj` `[C_out, C_in]` starts Xavier-uniform, `p` `[m]` at 6.5.
    """

    proj: nn.Parameter | None

    def __init__(self, in_channels: int, out_channels: int | None, split: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.split = list(split)
        proj = None if out_channels is None else nn.Parameter(torch.empty(out_channels, in_channels))
        self.register_parameter("proj", proj)
        self.p = nn.Parameter(torch.empty(len(self.split)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a new projection and set the powers back."""
        if self.proj is not None:
            nn.init.xavier_uniform_(self.proj)
        nn.init.constant_(self.p, INITIAL_POWER)

    def forward(
        self, x: Tensor, seq_lens: Sequence[int] | Tensor | None = None, support: Tensor | None = None
    ) -> Tensor:
        """One pooled vector per sequence and region."""
        return functional.astp(x, self.proj, self.p, self.split, seq_lens=seq_lens, support=support)

    def extra_repr(self) -> str:
        """Sizes shown by `print(module)`."""
        c_out = "no projection" if self.proj is None else self.proj.shape[0]
        return f"{self.in_channels}, {c_out}, split={self.split}"


class StripPool(Layer):
    """Frame maximum, then the generalised mean of `bins` equal strips of rows, with one power `p` `[1]` for all.

    `[N, C, T, H, W]` to `[N, C, bins]`; see `hstl_fast.functional.strip_pool`. `p` starts at 6.5.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.p = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the power back."""
        nn.init.constant_(self.p, INITIAL_POWER)

    def forward(
        self, x: Tensor, seq_lens: Sequence[int] | Tensor | None = None, support: Tensor | None = None
    ) -> Tensor:
        """One pooled vector per sequence and strip."""
        return functional.strip_pool(x, self.p, self.bins, seq_lens=seq_lens, support=support)

    def extra_repr(self) -> str:
        """Sizes shown by `print(module)`."""
        return f"bins={self.bins}"


class FTA(Layer):
    """Frame-level temporal aggregation: frame maxima over windows of 3 and 5, mixed by a learned gate per region.

    `[N, C, T, H, W]` to `[N, C, T // 3, H, W]`; see `hstl_fast.functional.fta`. `weight` `[m, 2, C, C]` starts
    Xavier-uniform matrix by matrix, `bias` `[m, 2, C]` at 0; index 0 of the second axis belongs to the windows of 3.
    """

    def __init__(self, channels: int, split: Sequence[int]) -> None:
        super().__init__()
        self.split = list(split)
        self.weight = nn.Parameter(torch.empty(len(self.split), 2, channels, channels))
        self.bias = nn.Parameter(torch.empty(len(self.split), 2, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and set the biases back."""
        for weight in self.weight.flatten(0, 1):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, seq_lens: Sequence[int] | Tensor | None = None, support: Tensor | None = None
    ) -> Tensor:
        """The gated maxima of `x`."""
        return functional.fta(x, self.weight, self.bias, self.split, seq_lens=seq_lens, support=support)

    def extra_repr(self) -> str:
        """Sizes shown by `print(module)`."""
        return f"{self.weight.shape[-1]}, split={self.split}"


class SeparateFCs(Layer):
    """A linear map without bias for every part: `y[n, p] = x[n, p] @ weight[p]`, in float32 at least.

    `[N, P, in]` to `[N, P, out]`. `weight` `[P, in, out]` starts as `torch.nn.init.xavier_uniform_` fills a tensor of
    this shape: uniform within `sqrt(6 / (out * (in + P)))`.
    """

    def __init__(self, parts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_features, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Every part's map of `x`."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.matmul(x.to(dtype).transpose(0, 1).contiguous(), self.weight.to(dtype)).transpose(0, 1)

    def extra_repr(self) -> str:
        """Sizes shown by `print(module)`."""
        parts, c_in, c_out = self.weight.shape
        return f"{c_in}, {c_out}, parts={parts}"
