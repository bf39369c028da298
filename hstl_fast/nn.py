"""The layers of HSTL as modules: each holds its parameters and calls one function of `hstl_fast.functional`.

A feature map is `[N, C, T, H, W]`. The `split` of a module lists the rows of its regions, from top to bottom; they sum
to `H`, and each region has parameters of its own.
"""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from hstl_fast import functional
from hstl_fast.backends.cpu.huge_pages import prefer_huge_pages
from hstl_fast.ops._checks import Lengths
from hstl_fast.ops.support import Support

# The powers of the generalised means start here.
INITIAL_POWER = 6.5


class Layer(nn.Module):
    """The base class of all modules of this package; `torch.jit.script` refuses them with a reason."""

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse `torch.jit.script`, which knows too little of Python for the checks of the operators."""
        raise RuntimeError(
            f"{type(self).__name__} cannot be compiled by torch.jit.script; use torch.compile or torch.export.export"
        )


class ARME(Layer):
    """Adaptive region-based motion extractor: a 3x3x3 convolution per region, then LeakyReLU.

    It computes `hstl_fast.functional.arme`, which says what that is.

    Args:
        in_channels: Channels `C_in` of the input.
        out_channels: Channels `C_out` of the output.
        split: Rows of each of the `m` regions.
        negative_slope: Slope of LeakyReLU; None for no activation.

    Attributes:
        weight: `[m, C_out, C_in, 3, 3, 3]`, drawn Xavier-uniform for each region.
    """

    def __init__(
        self, in_channels: int, out_channels: int, split: Sequence[int], negative_slope: float | None = 0.01
    ) -> None:
        super().__init__()
        self.split = list(split)
        self.negative_slope = negative_slope
        weight = torch.empty(len(self.split), out_channels, in_channels, 3, 3, 3)
        prefer_huge_pages(weight)  # every evaluation reads all of it
        self.weight = nn.Parameter(weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights for every region."""
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, seq_lens: Lengths | None = None, support: Tensor | Support | None = None) -> Tensor:
        """Convolve every region of `x` with its own weights.

        Args:
            x: Feature map `[N, C_in, T, H, W]` of a floating type.
            seq_lens: Lengths of the sequences that are packed along `T` (then `N` is 1): a list, a numpy array or a
                1-D integer tensor on the CPU. None where every sequence is a batch entry.
            support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero; elsewhere `x` counts as 0. `HSTL`
                passes a `Support`, which holds that of the output as well.

        Returns:
            Feature map `[N, C_out, T, H, W]` of the type of `x`, or of autocast; channels last.

        Raises:
            ValueError: An argument does not fit; the message names it.
            TypeError: An argument is of the wrong type; the message names it.
            RuntimeError: The backend or algorithm that is asked for cannot run; the message says why.
        """
        return functional.arme(
            x, self.weight, self.split, negative_slope=self.negative_slope, seq_lens=seq_lens, support=support
        )

    def extra_repr(self) -> str:
        """Return the sizes that `print(module)` shows."""
        _, c_out, c_in = self.weight.shape[:3]
        return f"{c_in}, {c_out}, split={self.split}, negative_slope={self.negative_slope}"


class ASTP(Layer):
    """Adaptive spatio-temporal pooling: frame maximum, projection, generalised mean of each region.

    It computes `hstl_fast.functional.astp`, which says what that is.

    Args:
        in_channels: Channels `C_in` of the input.
        out_channels: Channels `C_out` of the output; None for no projection, then `C_out` is `C_in`.
        split: Rows of each of the `m` regions.

    Attributes:
        proj: `[C_out, C_in]`, drawn Xavier-uniform; None without a projection.
        p: `[m]`, the power of each region's mean, 6.5 at the start.
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
        """Draw a new projection and set every power to 6.5."""
        if self.proj is not None:
            nn.init.xavier_uniform_(self.proj)
        nn.init.constant_(self.p, INITIAL_POWER)

    def forward(self, x: Tensor, seq_lens: Lengths | None = None, support: Tensor | Support | None = None) -> Tensor:
        """Pool every region of `x` to one vector per sequence.

        Args:
            x: Feature map `[N, C_in, T, H, W]` of a floating type.
            seq_lens: Lengths of the sequences that are packed along `T` (then `N` is 1): a list, a numpy array or a
                1-D integer tensor on the CPU. None where every sequence is a batch entry.
            support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero; elsewhere `x` counts as 0. `HSTL`
                passes a `Support`, which holds that of the output as well.

        Returns:
            Vectors `[N, C_out, m]`, or `[len(seq_lens), C_out, m]`; float32, float64 for float64.

        Raises:
            ValueError: An argument does not fit; the message names it.
            TypeError: An argument is of the wrong type; the message names it.
            RuntimeError: The backend or algorithm that is asked for cannot run; the message says why.
        """
        return functional.astp(x, self.proj, self.p, self.split, seq_lens=seq_lens, support=support)

    def extra_repr(self) -> str:
        """Return the sizes that `print(module)` shows."""
        c_out = "no projection" if self.proj is None else self.proj.shape[0]
        return f"{self.in_channels}, {c_out}, split={self.split}"


class StripPool(Layer):
    """Frame maximum, then the generalised mean of equal strips of rows, with one power for all.

    It computes `hstl_fast.functional.strip_pool`, which says what that is.

    Args:
        bins: Number of strips; it divides `H`.

    Attributes:
        p: `[1]`, the power of the mean, 6.5 at the start.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.p = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the power to 6.5."""
        nn.init.constant_(self.p, INITIAL_POWER)

    def forward(self, x: Tensor, seq_lens: Lengths | None = None, support: Tensor | Support | None = None) -> Tensor:
        """Pool every strip of `x` to one vector per sequence.

        Args:
            x: Feature map `[N, C, T, H, W]` of a floating type.
            seq_lens: Lengths of the sequences that are packed along `T` (then `N` is 1): a list, a numpy array or a
                1-D integer tensor on the CPU. None where every sequence is a batch entry.
            support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero; elsewhere `x` counts as 0. `HSTL`
                passes a `Support`, which holds that of the output as well.

        Returns:
            Vectors `[N, C, bins]`, or `[len(seq_lens), C, bins]`; float32, float64 for float64.

        Raises:
            ValueError: An argument does not fit; the message names it.
            TypeError: An argument is of the wrong type; the message names it.
            RuntimeError: The backend or algorithm that is asked for cannot run; the message says why.
        """
        return functional.strip_pool(x, self.p, self.bins, seq_lens=seq_lens, support=support)

    def extra_repr(self) -> str:
        """Return the sizes that `print(module)` shows."""
        return f"bins={self.bins}"


class FTA(Layer):
    """Frame-level temporal aggregation: maxima over windows of 3 and of 5 frames, mixed by a learned gate per region.

    It computes `hstl_fast.functional.fta`, which says what that is.

    Args:
        channels: Channels `C` of the input and of the output.
        split: Rows of each of the `m` regions.

    Attributes:
        weight: `[m, 2, C, C]`, each matrix drawn Xavier-uniform; index 0 of the second axis belongs to the windows of
            3 frames, index 1 to those of 5.
        bias: `[m, 2, C]`, 0 at the start.
    """

    def __init__(self, channels: int, split: Sequence[int]) -> None:
        super().__init__()
        self.split = list(split)
        self.weight = nn.Parameter(torch.empty(len(self.split), 2, channels, channels))
        self.bias = nn.Parameter(torch.empty(len(self.split), 2, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and set the biases to 0."""
        for weight in self.weight.flatten(0, 1):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, seq_lens: Lengths | None = None, support: Tensor | Support | None = None) -> Tensor:
        """Mix the window maxima of every region of `x`.

        Args:
            x: Feature map `[N, C, T, H, W]` with `T` of 3 or more, of a floating type.
            seq_lens: Lengths of the sequences that are packed along `T` (then `N` is 1): a list, a numpy array or a
                1-D integer tensor on the CPU. None where every sequence is a batch entry.
            support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero; elsewhere `x` counts as 0. `HSTL`
                passes a `Support`, which holds that of the output as well.

        Returns:
            Feature map `[N, C, T // 3, H, W]`; packed sequences get the lengths `fta_lengths(seq_lens)`.

        Raises:
            ValueError: An argument does not fit; the message names it.
            TypeError: An argument is of the wrong type; the message names it.
            RuntimeError: The backend or algorithm that is asked for cannot run; the message says why.
        """
        return functional.fta(x, self.weight, self.bias, self.split, seq_lens=seq_lens, support=support)

    def extra_repr(self) -> str:
        """Return the sizes that `print(module)` shows."""
        return f"{self.weight.shape[-1]}, split={self.split}"


class SeparateFCs(Layer):
    """Separate fully connected layers: a linear map without bias for each part, `y[n, p] = x[n, p] @ weight[p]`.

    Args:
        parts: Number of parts `P`.
        in_features: Features `C_in` of every part of the input.
        out_features: Features `C_out` of every part of the output.

    Attributes:
        weight: `[P, C_in, C_out]`, drawn as `torch.nn.init.xavier_uniform_` fills a tensor of this shape: uniform
            within `sqrt(6 / (C_out * (C_in + P)))`.
    """

    def __init__(self, parts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_features, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights for every part."""
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map every part of `x` with its own weights.

        Args:
            x: Vectors `[N, P, C_in]` of a floating type.

        Returns:
            Vectors `[N, P, C_out]`, computed in float32 at least.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.matmul(x.to(dtype).transpose(0, 1).contiguous(), self.weight.to(dtype)).transpose(0, 1)

    def extra_repr(self) -> str:
        """Return the sizes that `print(module)` shows."""
        parts, c_in, c_out = self.weight.shape
        return f"{c_in}, {c_out}, parts={parts}"
