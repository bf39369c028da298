"""ARME on the cuda backend: forward, dgrad and wgrad, their workspaces, and the frames of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hstl_fast.backends.cuda.calls import NativeCall, place_of, product_type_of, type_of, workspace
from hstl_fast.backends.gpu import countable
from hstl_fast.backends.tables import frames_table, regions_table
from hstl_fast.layout import empty_map, frames_of

# Positions of a region, and output channels, that a block computes in every frame of its stretch of time.
BLOCK_POSITIONS, BLOCK_CHANNELS = 256, 64
# So many blocks for every multiprocessor even out their different lengths.
BLOCKS_PER_MULTIPROCESSOR = 4
# A stretch of so few frames is not divided: each part also reads the frame before and the frame after.
SHORTEST_STRETCH = 4


class Sizes(NamedTuple):
    """The sizes of a convolution: rows of each region, all frames, sequences, columns and channels."""

    split: list[int]
    frames: int
    sequences: int
    w: int
    c_in: int
    c_out: int


@dataclass(slots=True, eq=False)
class WorkspaceCall(NativeCall):
    """The bytes of the scratch memory of forward, dgrad or wgrad."""

    name: ClassVar[str] = "arme_workspace"
    sizes: Sizes
    type: int
    stretch: int
    wgrad: bool
    device: int


@dataclass(slots=True, eq=False)
class ForwardCall(NativeCall):
    """y = LeakyReLU(conv3d of every region), 0 outside its support."""

    name: ClassVar[str] = "arme_forward"
    y: Tensor
    x: Tensor
    weights: Tensor
    y_support: Tensor | None
    starts: Tensor
    ends: Tensor
    regions: Tensor
    workspace: Tensor
    sizes: Sizes
    negative_slope: float
    type: int
    x_type: int
    stretch: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class DgradCall(NativeCall):
    """The gradient of the input, from that of the convolution's sums.

    With `x`, it is multiplied by the derivative of the activation whose output `x` is; with `maximum_index`, the
    gradient of x's frame maximum is added before.
    """

    name: ClassVar[str] = "arme_dgrad"
    gx: Tensor
    grad: Tensor
    weights: Tensor
    x_support: Tensor | None
    x: Tensor | None
    maximum_grad: Tensor | None
    maximum_index: Tensor | None
    starts: Tensor
    ends: Tensor
    regions: Tensor
    workspace: Tensor
    sizes: Sizes
    x_slope: float
    type: int
    stretch: int
    device: int
    stream: int


@dataclass(slots=True, eq=False)
class WgradCall(NativeCall):
    """The gradient of the weights."""

    name: ClassVar[str] = "arme_wgrad"
    gw: Tensor
    grad: Tensor
    x: Tensor
    y_support: Tensor | None
    starts: Tensor
    ends: Tensor
    regions: Tensor
    workspace: Tensor
    sizes: Sizes
    type: int
    x_type: int
    stretch: int
    device: int
    stream: int


def forward(
    x: Tensor, weights: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int], slope: float
) -> Tensor:
    """The convolution and LeakyReLU: [n, c_out, t, h, w], channels last.

    Args:
        x: [n, c_in, t, h, w], uint8 or floating.
        weights: [m, c_out, c_in, 3, 3, 3], of the type to compute in.
        support: the output's, bool [n, t, h, w], or None.
        split: rows of each region.
        seq_lens: frames of each packed sequence, or [].
        slope: LeakyReLU's slope for negative values.
    """
    n, _, t, h, w = x.shape
    c_out, c_in = weights.shape[1:3]
    lens = frames_of(x, seq_lens)
    sizes, place = _sizes(x, lens, split, c_in, c_out), place_of(x)
    stretch = stretch_of(lens, split, w, c_out, x.device)
    y, kind = empty_map(weights, n, c_out, t, h, w), product_type_of(weights)
    memory = workspace(WorkspaceCall(sizes, kind, stretch, False, place.device)(), x)
    types = (kind, kind if x.dtype == weights.dtype else type_of(x))
    tables = _tables(lens, split, x.device)
    inside = None if support is None else support.contiguous()
    ForwardCall(y, x, weights.contiguous(), inside, *tables, memory, sizes, slope, *types, stretch, *place)()
    return y


class Fused(NamedTuple):
    """The rest of dgrad's work, after the convolution.

    Attributes:
        x: The output of the activation before, whose derivative is applied, or None.
        slope: The slope of that activation.
        maximum: The gradient of x's frame maximum, float32 [n, c, 1, h, w], and the maximum's frame index, or None.
    """

    x: Tensor | None = None
    slope: float = 1.0
    maximum: tuple[Tensor, Tensor] | None = None


NOTHING_FUSED = Fused()


def dgrad(
    grad: Tensor,
    weights: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    fused: Fused = NOTHING_FUSED,
) -> Tensor:
    """The gradient of the input, whose support this is, from that of the convolution, before LeakyReLU."""
    n, _, t, h, w = grad.shape
    c_out, c_in = weights.shape[1:3]
    lens = frames_of(grad, seq_lens)
    sizes, place = _sizes(grad, lens, split, c_in, c_out), place_of(grad)
    stretch = stretch_of(lens, split, w, c_in, grad.device)
    gx, kind = empty_map(grad, n, c_in, t, h, w), product_type_of(grad)
    exchanged = sizes._replace(c_in=c_out, c_out=c_in)
    memory = workspace(WorkspaceCall(exchanged, kind, stretch, False, place.device)(), grad)
    inside = None if support is None else support.contiguous()
    tables = _tables(lens, split, grad.device)
    maximum_grad, maximum_index = fused.maximum or (None, None)
    after = (fused.x, maximum_grad, maximum_index)
    given = weights.contiguous()
    DgradCall(gx, grad, given, inside, *after, *tables, memory, sizes, fused.slope, kind, stretch, *place)()
    return gx


def wgrad(grad: Tensor, x: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]) -> Tensor:
    """The gradient of the weights, float32 [m, c_out, c_in, 3, 3, 3].

    `grad` is the gradient of the convolution, before LeakyReLU, and `support` is that of the output.
    """
    c_in, c_out, w = x.shape[1], grad.shape[1], x.shape[4]
    lens = frames_of(grad, seq_lens)
    sizes, place = _sizes(grad, lens, split, c_in, c_out), place_of(grad)
    stretch = stretch_of(lens, split, w, c_out, grad.device)
    gw = torch.empty((len(split), c_out, c_in, 3, 3, 3), dtype=torch.float32, device=grad.device)
    kind = product_type_of(grad)
    memory = workspace(WorkspaceCall(sizes, kind, stretch, True, place.device)(), grad)
    types = (kind, kind if x.dtype == grad.dtype else type_of(x))
    inside = None if support is None else support.contiguous()
    WgradCall(gw, grad, x, inside, *_tables(lens, split, x.device), memory, sizes, *types, stretch, *place)()
    return gw


def _sizes(map_: Tensor, lens: list[int], split: list[int], c_in: int, c_out: int) -> Sizes:
    n, _, t, h, w = map_.shape
    countable(n * t * h * w, "cuda")
    return Sizes(split, n * t, len(lens), w, c_in, c_out)


def _tables(lens: list[int], split: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The tables `starts`, `ends` and `regions`."""
    frames = frames_table(lens, device)
    return frames.starts, frames.ends, regions_table(split, device)


def stretch_of(lens: list[int], split: list[int], width: int, c_out: int, device: torch.device) -> int:
    """The frames of one block's stretch of time.

    A block goes through its stretch frame by frame and reads every input frame once, and two more at the ends. So
    stretches are as long as the longest sequence, unless that leaves multiprocessors without work.
    """
    tiles = sum(-(-rows * width // BLOCK_POSITIONS) for rows in split)
    blocks = tiles * len(lens) * -(-c_out // BLOCK_CHANNELS)
    parts = -(-BLOCKS_PER_MULTIPROCESSOR * _multiprocessors(device) // blocks)
    return max(min(max(lens), SHORTEST_STRETCH), -(-max(lens) // parts))


def _multiprocessors(device: torch.device) -> int:
    """The multiprocessors of a GPU; one where the kernels are emulated on the CPU."""
    if device.type != "cuda":
        return 1
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
