"""An execution plan of native calls for a network in evaluation: no Python runs between two layers.

Between two layers the interpreter would find its own memory and torch's out of the processor's caches every time: a
seventh of a clip's time. So the calls are planned first and run at the end. What is known by then also saves work:
frame maxima are found while a convolution's output is in registers, two blocks of memory hold the maps in turn (a third
holds a 2x2 maximum beside a map that is read as well), and a map of which only the maximum is wanted is never written.

This module plans the layers of a network, so it belongs to `models`, although it runs calls of the CPU backend alone: a
backend knows operators only, and nothing of layers or of their order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast.backends.cpu import arme, astp, fta, head, max_pool, support
from hstl_fast.backends.cpu.algorithm import DIRECT, resolve
from hstl_fast.backends.cpu.allocator import allocate
from hstl_fast.backends.cpu.calls import NativeCall, NativeCallWithWorkspace, contiguous
from hstl_fast.backends.cpu.weights import Request, cached_weights
from hstl_fast.layout import frames_of
from hstl_fast.models.eligibility import Network, may_plan_head
from hstl_fast.models.head import apply_head
from hstl_fast.models.inputs import scaled
from hstl_fast.nn import ARME, ASTP, FTA, StripPool
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.reference import fta_lengths


class Buffer:
    """Memory for one thing after another, as much as the largest needs; allocated when everything is known."""

    def __init__(self) -> None:
        self._sizes = [0]
        self._memory: Tensor | None = None

    def reserve(self, size: int) -> Buffer:
        """Make room for `size` bytes."""
        self._sizes.append(size)
        return self

    def cancel_last(self) -> None:
        """Cancel the last reservation, whose map is not written."""
        self._sizes.pop()

    def allocate(self) -> None:
        """Get the memory."""
        if size := max(self._sizes):
            self._memory = allocate(size)

    def data_ptr(self) -> int:
        """The address; 0 before it is allocated."""
        return 0 if self._memory is None else self._memory.data_ptr()


class Step(NamedTuple):
    """A native call of a plan, and the layer that it computes; None for a call that belongs to no layer."""

    layer: nn.Module | None
    call: NativeCall


class PlannedMaps:
    """Feature maps (see feature_maps.py) whose layers are planned; `head` computes everything.

    Args:
        silhouettes: `[n, t, h, w]`, uint8 0..255 or of `dtype`.
        dtype: the maps' type, float32 or float64.
        lengths: of packed sequences, else empty.
    """

    def __init__(self, silhouettes: Tensor, dtype: torch.dtype, lengths: list[int]) -> None:
        # An empty tensor of the maps' type and device, beside which the layers' tensors are checked.
        self._like = torch.empty(0, dtype=dtype, device="cpu")
        self._threads = torch.get_num_threads()
        self._x: Tensor | Buffer = silhouettes.contiguous()
        self._lens = frames_of(silhouettes[:, None], lengths)
        _, _, self._height, self._width = silhouettes.shape
        self._channels = 1
        self._support = (silhouettes != 0).contiguous()
        self._maximum: Tensor | None = None
        self._steps: list[Step] = []
        # The convolutions, and the weights to prepack for them.
        self._weights: list[tuple[arme.ForwardCall | arme.SilhouettesForwardCall, Request]] = []
        # The convolution that `_x` comes from.
        self._convolution: arme.ForwardCall | arme.SilhouettesForwardCall | None = None
        self._buffers = (Buffer(), Buffer())
        self._beside = Buffer()  # for a 2x2 maximum that is found beside a map which is read, too
        self._workspace = Buffer()
        self._pooled: list[Tensor] = []

    def convolve(self, layer: nn.Module) -> None:
        """Plan an `ARME`."""
        assert isinstance(layer, ARME)
        rows, c_in = _checks.rows(layer.split, self._height), self._channels
        _checks.parameter(layer.weight, "weight", (len(rows), "c_out", c_in, 3, 3, 3), self._like)
        c_out, dtype = layer.weight.shape[1], self._like.dtype
        algorithm = resolve(_dispatch.choose_algorithm(None, "cpu", dtype), dtype, c_in, c_out, self._lens)
        grown = torch.empty_like(self._support)
        support.GrowCall(grown, self._support, self._lens, rows, self._width, self._threads)()
        slope = _checks.slope(layer.negative_slope)
        if isinstance(self._convolution, arme.SilhouettesForwardCall):
            self._convolution.leaves_outside = True  # this layer reads inside the support only
        x, y = self._x, self._next(self._map_bytes(c_out))
        call: arme.ForwardCall | arme.SilhouettesForwardCall
        if isinstance(x, Tensor) and x.dtype == torch.uint8 and algorithm == DIRECT:
            sizes = (self._lens, rows, self._width, c_out)
            call = arme.SilhouettesForwardCall(y, x, None, None, grown, *sizes, slope, *self._common())
            call.workspace = self._workspace.reserve(call.workspace_bytes())
        else:
            x = scaled(x, dtype) if isinstance(x, Tensor) else x
            convolution = arme.Sizes(self._lens, rows, self._width, c_in, c_out)
            method = arme.Method(slope, algorithm, *self._common())
            call = arme.ForwardCall(y, x, None, None, arme.Supports(self._support, grown), convolution, method)
            call.workspace = self._workspace.reserve(call.workspace_bytes(with_maximum=call.finds_maxima))
        self._convolution = call
        self._steps.append(Step(layer, call))
        self._weights.append((call, Request(layer.weight, dtype, rows, algorithm)))
        self._support, self._channels = grown, c_out

    def aggregate(self, layer: nn.Module) -> None:
        """Plan an `FTA`."""
        assert isinstance(layer, FTA)
        rows, c = _checks.rows(layer.split, self._height), self._channels
        _checks.parameter(layer.weight, "weight", (len(rows), 2, c, c), self._like)
        _checks.parameter(layer.bias, "bias", (len(rows), 2, c), self._like)
        windows = fta_lengths(self._lens)
        y_support = self._support.new_empty((1, sum(windows), self._height, self._width))
        support.WindowCall(y_support, self._support, self._lens, self._height, self._width, self._threads)()
        sizes = fta.Sizes(self._lens, rows, self._width, c, *self._common())
        means = self._empty(sum(windows), len(rows), c)
        self._lens = windows
        x, y = self._x, self._next(self._map_bytes(c))
        tensors = (y, means, x, layer.weight.detach().contiguous(), layer.bias.detach().contiguous())
        self._plan_with_workspace(layer, fta.ForwardCall(*tensors, None, sizes, y_support))
        self._support = y_support

    def max_pool(self) -> None:
        """Plan the 2x2 spatial maximum: in the convolution before it if that can find it.

        The map itself is left out then, unless the frame maximum is read from it.
        """
        frames, (h, w) = sum(self._lens), (self._height, self._width)
        self._height, self._width = h // 2, w // 2
        smaller = self._support.new_empty((1, frames, self._height, self._width))
        support.MaxPoolCall(smaller, self._support, frames, h, w)()
        size, last = self._map_bytes(self._channels), self._convolution
        if isinstance(last, arme.ForwardCall) and last.finds_max_pool:
            is_read = self._maximum is not None and last.maximum is None
            self._x = last.max_pooled = (self._beside if is_read else self._leave_out(last)).reserve(size)
            self._maximum = self._convolution = None
        else:
            x, y = self._x, self._next(size)
            self._steps.append(
                Step(None, max_pool.MaxPoolCall(y, x, smaller, frames, h, w, self._channels, *self._common()))
            )
        self._support = smaller

    def reduce(self) -> None:
        """Plan the frame maximum, and leave out the map itself if the convolution before it can find the maximum."""
        self._frame_maximum(None)
        if self._convolution is not None and self._convolution.finds_maxima:
            self._leave_out(self._convolution)

    def pool(self, layer: nn.Module) -> None:
        """Plan an `ASTP` or a `StripPool`."""
        assert isinstance(layer, (ASTP, StripPool))
        maximum = self._frame_maximum(layer)
        proj, c_out = None, self._channels
        if isinstance(layer, StripPool):
            rows = _checks.bins(layer.bins, self._height)
            _checks.powers(layer.p, (1,), self._like)
        else:
            proj, rows = layer.proj, _checks.rows(layer.split, self._height)
            _checks.powers(layer.p, (len(rows),), self._like)
        if proj is not None:
            _checks.parameter(proj, "proj", ("c_out", self._channels), self._like)
            c_out = proj.shape[0]
        p = layer.p.detach().expand(len(rows)).contiguous()
        pooled = self._empty(len(self._lens), len(rows), c_out)
        sizes = astp.PoolSizes(len(self._lens), rows, self._width, self._channels, c_out, *self._common())
        self._plan_with_workspace(layer, astp.ForwardCall(pooled, maximum, contiguous(proj), p, None, sizes))
        self._pooled.append(pooled)

    def head(self, network: Network, batch_statistics: bool) -> Tensor:
        """Run the plan, then the head."""
        self.run()
        if batch_statistics or not may_plan_head(network):
            return apply_head(network, [pooled.transpose(1, 2) for pooled in self._pooled], batch_statistics)
        embeddings, step = self._planned_head(network)
        self.run_step(step)
        return embeddings

    def run(self) -> None:
        """Allocate the memory, prepack weights that are not cached, and run all steps but the head."""
        for (call, _), prepacked in zip(self._weights, cached_weights([request for _, request in self._weights])):
            call.prepacked = prepacked
        for buffer in (*self._buffers, self._beside, self._workspace):
            buffer.allocate()
        for step in self._steps:
            self.run_step(step)

    def run_step(self, step: Step) -> None:
        """Run one step; the benchmarks put a stopwatch here."""
        step.call()

    def _planned_head(self, network: Network) -> tuple[Tensor, Step]:
        parts, norm, x = network.parts, network.norm, torch.cat(self._pooled, 1)
        n, count, c_in = x.shape
        _checks.parameter(parts.weight, "weight", (count, c_in, "c_out"), x)
        c_out = parts.weight.shape[2]
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        for tensor in tensors:
            _checks.parameter(tensor, "norm", (c_out,), x)
        y, fc = self._empty(n, count, c_out), parts.weight.detach().contiguous()
        statistics = head.Norm(*(contiguous(tensor) for tensor in tensors))
        return y, Step(parts, head.HeadCall(y, x, fc, statistics, norm.eps, n, count, c_in, c_out, *self._common()))

    def _plan_with_workspace(self, layer: nn.Module, call: NativeCallWithWorkspace) -> None:
        call.workspace = self._workspace.reserve(call.workspace_bytes())
        self._steps.append(Step(layer, call))

    def _next(self, size: int) -> Buffer:
        """A buffer for the next map: the one that the current map is not in."""
        self._x = (self._buffers[0] if self._x is not self._buffers[0] else self._buffers[1]).reserve(size)
        self._maximum = self._convolution = None
        return self._x

    def _leave_out(self, convolution: arme.ForwardCall | arme.SilhouettesForwardCall) -> Buffer:
        """Do not write the convolution's map, the last one; returns the buffer that it would have been in."""
        buffer = convolution.y
        assert isinstance(buffer, Buffer)
        buffer.cancel_last()
        convolution.y = None
        return buffer

    def _frame_maximum(self, reader: nn.Module | None) -> Tensor:
        """The maximum over the frames of each sequence: by the convolution before if it can, else for `reader`."""
        if self._maximum is not None:
            return self._maximum
        maximum = self._maximum = self._empty(len(self._lens), self._height, self._width, self._channels)
        if self._convolution is not None and self._convolution.finds_maxima:
            self._convolution.maximum = maximum
        else:
            sizes = astp.MapSizes(self._lens, self._height, self._width, self._channels, *self._common())
            self._steps.append(Step(reader, astp.FrameMaximumCall(maximum, None, self._x, sizes, self._support)))
        return maximum

    def _common(self) -> tuple[int, int]:
        """The last arguments of native functions: bytes of an element, threads."""
        return self._like.dtype.itemsize, self._threads

    def _map_bytes(self, channels: int) -> int:
        return sum(self._lens) * self._height * self._width * channels * self._like.dtype.itemsize

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._like.dtype, device="cpu")
