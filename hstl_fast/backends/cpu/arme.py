"""ARME on the native CPU backend: forward, dgrad, wgrad, and the gradient of LeakyReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hstl_fast.backends import implements
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.algorithm import DIRECT, TILES, TRAINING_TILES, resolve
from hstl_fast.backends.cpu.allocator import allocate_map
from hstl_fast.backends.cpu.calls import Memory, NativeCall, NativeCallWithWorkspace, contiguous
from hstl_fast.backends.cpu.weights import Request, weights_of_call
from hstl_fast.layout import computing_dtype, dense, frames_of, is_native_map


class Supports(NamedTuple):
    """The positions where input and output may be non-zero, bool `[n, t, h, w]`; None: everywhere."""

    x_support: Memory | None
    y_support: Memory | None


class Sizes(NamedTuple):
    """The sizes of a convolution: frames of each sequence, rows of each region, columns and channels."""

    seq_lens: list[int]
    split: list[int]
    w: int
    c_in: int
    c_out: int


class Method(NamedTuple):
    """How a convolution is computed; `algorithm` is DIRECT or the frames of a Winograd tile."""

    negative_slope: float
    algorithm: int
    itemsize: int
    threads: int

    @property
    def for_workspace(self) -> tuple[int, int, int]:
        """The fields on which the size of the workspace depends: algorithm, bytes of an element, threads."""
        return self.algorithm, self.itemsize, self.threads


@dataclass(slots=True, eq=False)
class ForwardCall(NativeCallWithWorkspace):
    """y = LeakyReLU(conv3d of every region); with Winograd also the maxima over frames and over 2x2 positions."""

    name: ClassVar[str] = "arme_forward"
    y: Memory | None
    x: Memory
    prepacked: Memory | None
    workspace: Memory | None
    supports: Supports
    sizes: Sizes
    method: Method
    maximum: Memory | None = None
    max_pooled: Memory | None = None
    # Nothing is written outside the support of `y`, for readers that look at no other position.
    leaves_outside: bool = False
    # Not None: prepacked on the way, one region after another in the same memory.
    weights: Memory | None = None

    @property
    def finds_maxima(self) -> bool:
        """Whether the call can find the maxima on its way, and that pays.

        Every thread beyond the first has frame maxima of its own, which are to be few beside the frames.
        """
        lens = self.sizes.seq_lens
        return self.method.algorithm != DIRECT and 2 * (self.method.threads - 1) * len(lens) <= sum(lens)

    @property
    def finds_max_pool(self) -> bool:
        """Whether the call can find the 2x2 maxima on its way.

        The convolution's tiles begin at even columns then, which changes how sums round. So this must not depend on the
        number of threads.
        """
        return self.method.algorithm != DIRECT and all(rows % 2 == 0 for rows in (*self.sizes.split, self.sizes.w))

    def workspace_bytes(self, with_maximum: bool = False) -> int:
        """Bytes of the workspace, with room for the frame maximum where the call may be asked for it."""
        size: int = library.require_cpu().arme_workspace(*self.sizes, *self.method.for_workspace, with_maximum)
        return size


@dataclass(slots=True, eq=False)
class SilhouettesForwardCall(NativeCallWithWorkspace):
    """The first layer's direct convolution of silhouettes as bytes, 0..255 for 0..1, which are their own support.

    It also finds the maxima over the frames of each sequence. With `leaves_outside` nothing is written outside the
    support of `y`, for a reader that looks at no other position.
    """

    name: ClassVar[str] = "silhouettes_forward"
    y: Memory | None
    silhouettes: Memory
    prepacked: Memory | None
    workspace: Memory | None
    support: Memory
    seq_lens: list[int]
    split: list[int]
    w: int
    c_out: int
    negative_slope: float
    itemsize: int
    threads: int
    maximum: Memory | None = None
    leaves_outside: bool = False

    @property
    def finds_maxima(self) -> bool:
        """Whether the call can find the maxima on its way, and that pays."""
        return True

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        shape = (self.seq_lens, self.split, self.w, 1, self.c_out)
        size: int = library.require_cpu().arme_workspace(*shape, DIRECT, self.itemsize, self.threads, False)
        return size


@dataclass(slots=True, eq=False)
class DgradCall(NativeCallWithWorkspace):
    """The gradient of the input, from that of the activation and the output, whose signs tell LeakyReLU's slope."""

    name: ClassVar[str] = "arme_dgrad"
    gx: Tensor
    grad: Tensor
    y: Tensor | None
    prepacked: Tensor
    workspace: Memory | None
    supports: Supports
    sizes: Sizes
    method: Method
    weights: Tensor | None

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        size: int = library.require_cpu().arme_workspace(*self.sizes, *self.method.for_workspace, False)
        return size


@dataclass(slots=True, eq=False)
class WgradCall(NativeCallWithWorkspace):
    """The gradient of the weights."""

    name: ClassVar[str] = "arme_wgrad"
    gw: Tensor
    x: Tensor
    grad: Tensor
    y: Tensor | None
    workspace: Memory | None
    supports: Supports
    sizes: Sizes
    method: Method

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        size: int = library.require_cpu().arme_wgrad_workspace(*self.sizes, *self.method.for_workspace)
        return size


@dataclass(slots=True, eq=False)
class LeakyBackwardCall(NativeCall):
    """grad *= slope where the output of LeakyReLU is not positive, inside the support, in place."""

    name: ClassVar[str] = "leaky_backward"
    grad: Tensor
    y: Tensor
    support: Tensor | None
    seq_lens: list[int]
    split: list[int]
    w: int
    c: int
    negative_slope: float
    itemsize: int
    threads: int


@implements("arme_forward", "cpu")
def forward(
    x: Tensor,
    weights: Tensor,
    x_support: Tensor | None,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
    algorithm: int,
    cache_weights: bool,
    training: bool,
) -> Tensor:
    """LeakyReLU of the regions' convolutions."""
    x_ = dense(x, computing_dtype(x.dtype))
    sizes = _sizes(x_, weights, split, seq_lens)
    method = _method(algorithm, negative_slope, x_, sizes, TRAINING_TILES if training else TILES)
    n, _, t, h, w = x.shape
    y = allocate_map(x_, n, sizes.c_out, t, h, w)
    request = Request(weights, x_.dtype, split, method.algorithm)
    prepacked, by_region = weights_of_call(request, cache=cache_weights)
    supports = _supports(x_support, y_support)
    ForwardCall(y, x_, prepacked, None, supports, sizes, method, weights=by_region).run()
    return y.to(x.dtype)


@implements("arme_dgrad", "cpu")
def dgrad(
    grad: Tensor,
    y: Tensor | None,
    weights: Tensor,
    x_support: Tensor | None,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
    algorithm: int,
) -> Tensor:
    """The gradient of the input; `y` is not read where the slope is 1."""
    dtype = computing_dtype(grad.dtype)
    g = dense(grad, dtype)
    sizes = _sizes(g, weights, split, seq_lens)
    method = _method(algorithm, negative_slope, g, sizes, TILES)
    n, _, t, h, w = grad.shape
    gx = allocate_map(g, n, sizes.c_in, t, h, w)
    request = Request(weights, dtype, split, method.algorithm)
    prepacked, by_region = weights_of_call(request, transposed=True, cache=False)
    supports = _supports(x_support, y_support)
    DgradCall(gx, g, _signs(y, dtype, negative_slope), prepacked, None, supports, sizes, method, by_region).run()
    return gx.to(grad.dtype)


@implements("arme_wgrad", "cpu")
def wgrad(
    grad: Tensor,
    y: Tensor | None,
    x: Tensor,
    weights: Tensor,
    x_support: Tensor | None,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    negative_slope: float,
    algorithm: int,
) -> Tensor:
    """The gradient of the weights; `y` is not read where the slope is 1."""
    dtype = computing_dtype(grad.dtype)
    g, x_ = dense(grad, dtype), dense(x, dtype)
    sizes = _sizes(x_, weights, split, seq_lens)
    method = _method(algorithm, negative_slope, x_, sizes, TILES)
    gw = torch.empty(weights.shape, dtype=dtype)
    supports = _supports(x_support, y_support)
    WgradCall(gw, x_, g, _signs(y, dtype, negative_slope), None, supports, sizes, method).run()
    return gw.to(weights.dtype)


@implements("leaky_backward_", "cpu")
def leaky_backward_(grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float) -> None:
    """The gradient of LeakyReLU by the signs of its output, in place."""
    if not is_native_map(grad):
        raise ValueError(
            f"grad must be a dense float32 or float64 map, channels last, got {grad.dtype} {grad.stride()}"
        )
    n, c, t, h, w = grad.shape
    signs, within = dense(y, grad.dtype), contiguous(support)
    shape = ([t] * n, [h], w, c)
    LeakyBackwardCall(grad, signs, within, *shape, negative_slope, grad.dtype.itemsize, torch.get_num_threads())()


def _sizes(like: Tensor, weights: Tensor, split: list[int], seq_lens: list[int]) -> Sizes:
    _, c_out, c_in = weights.shape[:3]
    return Sizes(frames_of(like, seq_lens), split, like.shape[4], c_in, c_out)


def _method(algorithm: int, negative_slope: float, like: Tensor, sizes: Sizes, tiles: tuple[int, ...]) -> Method:
    resolved = resolve(algorithm, like.dtype, sizes.c_in, sizes.c_out, sizes.seq_lens, tiles)
    return Method(negative_slope, resolved, like.dtype.itemsize, torch.get_num_threads())


def _supports(x: Tensor | None, y: Tensor | None) -> Supports:
    return Supports(contiguous(x), contiguous(y))


def _signs(y: Tensor | None, dtype: torch.dtype, negative_slope: float) -> Tensor | None:
    """The output, whose signs tell LeakyReLU's slope; None without an activation."""
    return None if y is None or negative_slope == 1.0 else dense(y, dtype)
