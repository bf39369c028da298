"""Frame maximum and generalised mean on the native CPU backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hstl_fast.backends import implements, indexable
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.allocator import allocate_map, allocate_tensor, as_map
from hstl_fast.backends.cpu.calls import Memory, NativeCall, NativeCallWithWorkspace, contiguous
from hstl_fast.layout import computing_dtype, dense, frames_of, is_native_map


class MapSizes(NamedTuple):
    """The sizes of a feature map whose frames are reduced."""

    seq_lens: list[int]
    h: int
    w: int
    c: int
    itemsize: int
    threads: int


class PoolSizes(NamedTuple):
    """The sizes of a generalised mean of regions: sequences, rows of each region, columns and channels."""

    n: int
    split: list[int]
    w: int
    c_in: int
    c_out: int
    itemsize: int
    threads: int


class ForwardSizes(NamedTuple):
    """As `PoolSizes`, with the frames of each sequence."""

    seq_lens: list[int]
    split: list[int]
    w: int
    c_in: int
    c_out: int
    itemsize: int
    threads: int


@dataclass(slots=True, eq=False)
class FrameMaximumCall(NativeCall):
    """The maxima over the frames of each sequence, and the frames they are in, where `index` is given."""

    name: ClassVar[str] = "frame_maximum"
    maximum: Memory
    index: Tensor | None
    x: Memory
    sizes: MapSizes
    support: Memory | None


@dataclass(slots=True, eq=False)
class FrameMaximumBackwardCall(NativeCall):
    """The gradient of the map: that of the maxima at the frames they are in, 0 elsewhere."""

    name: ClassVar[str] = "frame_maximum_backward"
    gx: Tensor
    grad: Tensor
    index: Tensor
    sizes: MapSizes


@dataclass(slots=True, eq=False)
class FrameMaximumBackwardAddCall(FrameMaximumBackwardCall):
    """The gradient of the maxima added to the map's own, in place."""

    name: ClassVar[str] = "frame_maximum_backward_add"


@dataclass(slots=True, eq=False)
class ForwardCall(NativeCallWithWorkspace):
    """The generalised mean of every region of projected frame maxima."""

    name: ClassVar[str] = "astp_forward"
    pooled: Memory
    x: Memory
    proj: Memory | None
    p: Memory
    workspace: Memory | None
    support: Memory | None
    sizes: ForwardSizes

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        seq_lens, *others = self.sizes
        size: int = library.require_cpu().astp_workspace(len(seq_lens), *others)
        return size


@dataclass(slots=True, eq=False)
class BackwardCall(NativeCallWithWorkspace):
    """The gradients of the maxima, the projection and the powers."""

    name: ClassVar[str] = "astp_backward"
    gmaximum: Tensor
    gproj: Tensor | None
    gp: Tensor
    grad: Tensor
    pooled: Tensor
    maximum: Tensor
    proj: Tensor | None
    p: Tensor
    workspace: Memory | None
    sizes: PoolSizes

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        size: int = library.require_cpu().astp_workspace(*self.sizes)
        return size


@implements("frame_maximum", "cpu")
def frame_maximum(x: Tensor, support: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    """The maxima over the frames of each sequence, `[n, c, 1, h, w]`, and their frames, int16 `[n, h, w, c]`."""
    x_ = dense(x, computing_dtype(x.dtype))
    lens = indexable(frames_of(x, seq_lens), "cpu")
    _, c, _, h, w = x.shape
    maximum = allocate_map(x_, len(lens), c, 1, h, w)
    index = allocate_tensor((len(lens), h, w, c), torch.int16)
    FrameMaximumCall(maximum, index, x_, _map_sizes(x_, lens), contiguous(support))()
    return maximum.to(x.dtype), index


@implements("frame_maximum_backward", "cpu")
def frame_maximum_backward(
    grad: Tensor, index: Tensor, x_shape: list[int], dtype: torch.dtype, seq_lens: list[int]
) -> Tensor:
    """The gradient of the map from that of its maxima."""
    g = dense(grad, computing_dtype(dtype))
    gx = allocate_map(g, *x_shape)
    FrameMaximumBackwardCall(gx, g, index, _map_sizes(gx, frames_of(gx, seq_lens)))()
    return gx.to(dtype)


@implements("frame_maximum_backward_add", "cpu")
def frame_maximum_backward_add(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    """The gradient of the maxima added to `gx`, in place."""
    if not is_native_map(gx):
        raise ValueError(f"gx must be a dense float32 or float64 map, channels last, got {gx.dtype} {gx.stride()}")
    FrameMaximumBackwardAddCall(gx, dense(grad, gx.dtype), index, _map_sizes(gx, frames_of(gx, seq_lens)))()


@implements("astp_forward", "cpu")
def forward(
    x: Tensor, proj: Tensor | None, p: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pooled regions `[n, m, c_out]`, the frame maxima and their frames, and nothing by power."""
    lens, x_ = indexable(frames_of(x, seq_lens), "cpu"), dense(x, computing_dtype(x.dtype))
    _, c, _, h, w = x.shape
    maximum = allocate_tensor((len(lens), h, w, c), x_.dtype)
    index = allocate_tensor(maximum.shape, torch.int16)
    FrameMaximumCall(maximum, index, x_, _map_sizes(x_, lens), contiguous(support))()
    pooled = _pooled(maximum, [1] * len(maximum), (w, c), proj, p, None, split)
    return pooled, maximum, index, pooled.new_empty(0)


@implements("astp_inference", "cpu")
def inference(
    x: Tensor, proj: Tensor | None, p: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]
) -> Tensor:
    """The pooled regions `[n, m, c_out]` alone."""
    x_ = dense(x, computing_dtype(x.dtype))
    _, c, _, _, w = x.shape
    return _pooled(x_, frames_of(x, seq_lens), (w, c), proj, p, support, split)


def _pooled(
    x: Tensor,
    lens: list[int],
    row: tuple[int, int],
    proj: Tensor | None,
    p: Tensor,
    support: Tensor | None,
    split: list[int],
) -> Tensor:
    """The projected regions `[n, m, c_out]` of the frame maxima of a map, whose rows are `[w, c_in]` in memory."""
    dtype, (w, c_in) = x.dtype, row
    proj_ = _matrix(proj, dtype)
    c_out = c_in if proj_ is None else proj_.shape[0]
    pooled = torch.empty((len(lens), len(split), c_out), dtype=dtype)
    sizes = ForwardSizes(lens, split, w, c_in, c_out, dtype.itemsize, torch.get_num_threads())
    ForwardCall(pooled, x, proj_, p.to(dtype).contiguous(), None, contiguous(support), sizes).run()
    return pooled


@implements("astp_backward", "cpu")
def backward(
    grad: Tensor,
    pooled: Tensor,
    maximum: Tensor,
    index: Tensor,
    by_power: Tensor,
    proj: Tensor | None,
    p: Tensor,
    x_shape: list[int],
    dtype: torch.dtype,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the map, the projection (empty without one) and the powers; `grad` is `[n, m, c_out]`."""
    wide = pooled.dtype
    g, p_, proj_ = grad.to(wide).contiguous(), p.to(wide).contiguous(), _matrix(proj, wide)
    gmaximum, gp = allocate_tensor(maximum.shape, wide), torch.empty_like(p_)
    gproj = None if proj_ is None else torch.empty_like(proj_)
    sizes = _pool_sizes(maximum, split, g.shape[2])
    # The map of one frame is the gradient of the maxima. Another map is allocated before the workspace is released: the
    # allocator keeps as much as was in use at once, and would keep one of the two only.
    gx = None if x_shape[0] * x_shape[2] == len(maximum) else allocate_map(gmaximum, *x_shape)
    BackwardCall(gmaximum, gproj, gp, g, pooled.contiguous(), maximum, proj_, p_, None, sizes).run()
    if gx is None:
        gx = as_map(gmaximum, wide, *x_shape)
    else:
        FrameMaximumBackwardCall(gx, gmaximum, index, _map_sizes(gx, frames_of(gx, seq_lens)))()
    gproj = p.new_empty(0) if gproj is None or proj is None else gproj.to(proj.dtype)
    return gx.to(dtype), gproj, gp.to(p.dtype)


def _matrix(proj: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if proj is None else proj.to(dtype).contiguous()


def _map_sizes(x: Tensor, lens: list[int]) -> MapSizes:
    _, c, _, h, w = x.shape
    return MapSizes(lens, h, w, c, x.dtype.itemsize, torch.get_num_threads())


def _pool_sizes(maximum: Tensor, split: list[int], c_out: int) -> PoolSizes:
    n, _, w, c_in = maximum.shape
    return PoolSizes(n, split, w, c_in, c_out, maximum.dtype.itemsize, torch.get_num_threads())
