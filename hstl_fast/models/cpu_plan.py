"""An execution plan of native calls for a network in evaluation: no Python runs between two layers.

Between two layers the interpreter would find its own memory and torch's out of the processor's caches every time: a
seventh of a clip's time. So the calls are planned first and run together, in one call of the extension. What is known
by then also saves work: frame maxima are found while a convolution's output is in registers, two areas of memory hold
the maps in turn (a third holds a 2x2 maximum beside a map that is read as well), and a map of which only the maximum is
wanted is never written.

This module plans the layers of a network, so it belongs to `models`, although it runs calls of the CPU backend alone: a
backend knows operators only, and nothing of layers or of their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast.backends.cpu import arme, astp, fta, head, max_pool, support
from hstl_fast.backends.cpu.algorithm import DIRECT, resolve
from hstl_fast.backends.cpu.allocator import Borrowed
from hstl_fast.backends.cpu.calls import NativeCall, NativeCallWithWorkspace
from hstl_fast.backends.cpu.program import ARENA, Area, CopyRowsCall, Place, Program, ProgramBuilder
from hstl_fast.backends.cpu.weights import Request, cached_weights
from hstl_fast.models.eligibility import Network, own_layers
from hstl_fast.models.inputs import scaled
from hstl_fast.nn import ARME, ASTP, FTA, StripPool
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.reference import fta_lengths

# The bases of a plan's places: silhouettes, the answer, and the prepacked weights of the first convolution and those
# that follow.
SILHOUETTES, ANSWER, PREPACKED = ARENA + 1, ARENA + 2, ARENA + 3


class PrepackedLayout(NamedTuple):
    """The fields of a `Request` besides the weights."""

    dtype: torch.dtype
    split: list[int]
    algorithm: int


class Level(NamedTuple):
    """A frame maximum in the answer of a plan.

    Attributes:
        layer: The pool that it is for, as its number in `layers_of`.
        begin: The number of its first element in the answer.
        shape: `[h, w, c]`.
    """

    layer: int
    begin: int
    shape: tuple[int, int, int]


class Plan(NamedTuple):
    """An execution plan; what it says of the network and its input is true of every call that it is used for.

    Attributes:
        program: The native calls.
        layers: The layer that each call computes, as its number in `layers_of`; None for a call of no layer.
        layouts: How the weights of the convolutions are prepacked, in their order.
        reads: The type of the silhouettes that the program reads.
        shape: The answer's.
        dtype: The answer's type.
        with_head: Whether the answer is embeddings; else it is the parts that the head is applied to, or maxima.
        levels: The maxima in the answer, where they are what is wanted.
    """

    program: Program
    layers: list[int | None]
    layouts: list[PrepackedLayout]
    reads: torch.dtype
    shape: tuple[int, ...]
    dtype: torch.dtype
    with_head: bool
    levels: tuple[Level, ...] = ()

    def run(self, silhouettes: Tensor, weights: list[Tensor]) -> Tensor:
        """Compute the answer.

        Args:
            silhouettes: `[n, t, h, w]` of the shape that was planned for.
            weights: The convolutions' weights, in their order.

        Returns:
            Embeddings or parts `[n, p, c]`, or maxima.
        """
        given = (silhouettes if silhouettes.dtype == self.reads else scaled(silhouettes, self.reads)).contiguous()
        prepacked = cached_weights([Request(w, *layout) for w, layout in zip(weights, self.layouts)])
        answer = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        addresses = [memory.data_ptr() for memory in (given, answer, *prepacked)]
        with Borrowed(self.program.arena_bytes) as arena:
            self.execute([0, arena.address, *addresses])
        return answer

    def execute(self, bases: list[int]) -> None:
        """Run the program; the benchmarks put a stopwatch here."""
        self.program.run(bases)


# A pool, and its `Level`'s first element and shape.
PooledMaximum = tuple[nn.Module, int, tuple[int, int, int]]


class PlannedMaps:
    """Feature maps (see feature_maps.py) whose layers are planned; `plan` returns the plan.

    Args:
        shape: The silhouettes' `[n, t, h, w]`.
        given: The silhouettes' type, uint8 or floating.
        dtype: The maps' type, float32 or float64.
        lengths: Frames of every sequence.
        with_head: Whether the head is planned as well.
    """

    def __init__(
        self, shape: tuple[int, ...], given: torch.dtype, dtype: torch.dtype, lengths: list[int], with_head: bool
    ) -> None:
        # An empty tensor of the maps' type and device, beside which the layers' tensors are checked.
        self._like = torch.empty(0, dtype=dtype, device="cpu")
        self._threads = torch.get_num_threads()
        self._lens, self._channels, (self._height, self._width) = lengths, 1, shape[2:]
        self._with_head = with_head
        # Tensors whose addresses the program knows, and whether there are copies of parameters among them.
        self.held, self.has_copies = list[Tensor](), False
        # The convolutions' weights.
        self.weights: list[Tensor] = []
        self._layouts: list[PrepackedLayout] = []
        self._program, self._layers = ProgramBuilder(), list[nn.Module | None]()
        self._reads = torch.uint8 if given == torch.uint8 else dtype
        self._silhouettes = self._program.place(SILHOUETTES)
        # The map, and where it may be non-zero.
        self._x: Place = self._silhouettes
        areas = [self._program.area() for _ in range(8)]
        self._maps, self._supports = areas[:2], areas[2:4]
        # For a 2x2 maximum that is found beside a map which is read, too; for scratch memory; for frame maxima; for the
        # parts of a level.
        self._beside, self._workspace, self._maxima, self._level = areas[4:]
        self._support = self._supports[0].reserve(self._positions())
        self._find = support.FindCall(self._support, self._x, self._positions(), self._reads.itemsize, self._threads)
        self._append(None, self._find)
        self._maximum: Place | None = None
        # The convolution that `_x` comes from, and whether the frame maximum is read from `_x`.
        self._convolution: arme.ForwardCall | arme.SilhouettesForwardCall | None = None
        self._is_pooled = False
        # The parts of all levels, `[n, p, c]`; copies of a level's parts into them; their number and width so far.
        self._parts = self._program.area() if with_head else self._program.place(ANSWER)
        self._copies: list[CopyRowsCall] = []
        self._count, self._part_width = 0, 0

    def convolve(self, layer: nn.Module) -> None:
        """Plan an `ARME`."""
        assert isinstance(layer, ARME)
        rows, c_in, weight = _checks.rows(layer.split, self._height), self._channels, layer.weight
        _checks.parameter(weight, "weight", (len(rows), "c_out", c_in, 3, 3, 3), self._like)
        c_out, dtype = weight.shape[1], self._like.dtype
        algorithm = resolve(_dispatch.choose_algorithm(None, "cpu", dtype), dtype, c_in, c_out, self._lens)
        prepacked = self._program.place(PREPACKED + len(self.weights))
        self.weights.append(weight)
        self._layouts.append(PrepackedLayout(dtype, rows, algorithm))
        before, grown = self._support, self._next_support(self._positions())
        self._append(None, support.GrowCall(grown, before, self._lens, rows, self._width, self._threads))
        slope = _checks.slope(layer.negative_slope)
        self._leave_outside()
        x, y = self._x, self._next(self._map_bytes(c_out))
        if x is self._silhouettes and self._reads == torch.uint8 and algorithm == DIRECT:
            sizes = (self._lens, rows, self._width, c_out)
            first = arme.SilhouettesForwardCall(y, x, prepacked, None, grown, *sizes, slope, *self._common())
            self._append_with_workspace(layer, first, first.workspace_bytes())
            self._convolution = first
        else:
            if x is self._silhouettes:
                self._reads, self._find.itemsize = dtype, dtype.itemsize
            convolution = arme.Sizes(self._lens, rows, self._width, c_in, c_out)
            method = arme.Method(slope, algorithm, *self._common())
            call = arme.ForwardCall(y, x, prepacked, None, arme.Supports(before, grown), convolution, method)
            self._append_with_workspace(layer, call, call.workspace_bytes(with_maximum=call.finds_maxima))
            self._convolution = call
        self._channels = c_out

    def aggregate(self, layer: nn.Module) -> None:
        """Plan an `FTA`."""
        assert isinstance(layer, FTA)
        rows, c = _checks.rows(layer.split, self._height), self._channels
        weight, bias = layer.weight.detach(), layer.bias.detach()
        _checks.parameter(weight, "weight", (len(rows), 2, c, c), self._like)
        _checks.parameter(bias, "bias", (len(rows), 2, c), self._like)
        windows = fta_lengths(self._lens)
        before, y_support = self._support, self._next_support(sum(windows) * self._height * self._width)
        joined = support.WindowCall(y_support, before, self._lens, self._height, self._width, self._threads)
        self._append(None, joined)
        sizes = fta.Sizes(self._lens, rows, self._width, c, *self._common())
        means = self._area(sum(windows), len(rows), c)
        self._lens = windows
        self._leave_outside()
        x, y = self._x, self._next(self._map_bytes(c))
        tensors = (self._tensor(weight), self._tensor(bias))
        call = fta.ForwardCall(y, means, x, *tensors, None, sizes, y_support, x_support=before)
        self._append_with_workspace(layer, call, call.workspace_bytes())

    def max_pool(self) -> None:
        """Plan the 2x2 spatial maximum: in the convolution before it if that can find it.

        The map itself is left out then, unless the frame maximum is read from it.
        """
        frames, (h, w) = sum(self._lens), (self._height, self._width)
        self._height, self._width = h // 2, w // 2
        before, smaller = self._support, self._next_support(frames * self._height * self._width)
        self._append(None, support.MaxPoolCall(smaller, before, frames, h, w))
        size, last = self._map_bytes(self._channels), self._convolution
        if isinstance(last, arme.ForwardCall) and last.finds_max_pool:
            self._x = last.max_pooled = (self._beside if self._is_pooled else self._leave_out(last)).reserve(size)
            self._maximum = self._convolution = None
        else:
            x, y = self._x, self._next(size)
            self._append(None, max_pool.MaxPoolCall(y, x, smaller, frames, h, w, self._channels, *self._common()))

    def reduce(self) -> None:
        """Plan the frame maximum, and leave out the map itself if the convolution before it can find the maximum."""
        self._frame_maximum()
        if self._convolution is not None and self._convolution.finds_maxima:
            self._leave_out(self._convolution)

    def pool(self, layer: nn.Module) -> None:
        """Plan an `ASTP` or a `StripPool`."""
        assert isinstance(layer, (ASTP, StripPool))
        p = layer.p.detach()
        x, lengths, inside = self._pooled_map()
        proj: Tensor | None = None
        c_out = self._channels
        if isinstance(layer, StripPool):
            rows = _checks.bins(layer.bins, self._height)
            _checks.powers(p, (1,), self._like)
        else:
            rows = _checks.rows(layer.split, self._height)
            proj = None if layer.proj is None else layer.proj.detach()
            _checks.powers(p, (len(rows),), self._like)
        if proj is not None:
            _checks.parameter(proj, "proj", ("c_out", self._channels), self._like)
            c_out = proj.shape[0]
        sizes = astp.ForwardSizes(lengths, rows, self._width, self._channels, c_out, *self._common())
        # The plan is made for these powers.
        powers = self._program.constant(p.expand(len(rows)).clone(memory_format=torch.contiguous_format))
        projection = None if proj is None else self._tensor(proj)
        begin = self._begin_parts(len(rows), c_out)
        pooled = begin if len(self._lens) == 1 else self._level.reserve(self._parts_bytes(len(rows)))
        call = astp.ForwardCall(pooled, x, projection, powers, None, inside, sizes)
        self._append_with_workspace(layer, call, call.workspace_bytes())
        if pooled is not begin:
            row = self._parts_bytes(len(rows)) // len(self._lens)
            self._copies.append(CopyRowsCall(begin, pooled, len(self._lens), row, 0))
            self._append(layer, self._copies[-1])

    def plan(self, network: Network) -> Plan:
        """Plan the head, if it is to be, and finish the plan."""
        width = self._part_width
        for copy in self._copies:
            copy.stride = self._parts_bytes(self._count) // len(self._lens)
        if self._with_head:
            assert isinstance(self._parts, Area)
            self._parts.reserve(self._parts_bytes(self._count))
            width = self._plan_head(network)
        return self._plan(network, (len(self._lens), self._count, width))

    def _plan(self, network: Network, shape: tuple[int, ...], pools: Sequence[PooledMaximum] = ()) -> Plan:
        """The plan for an answer of this shape."""
        numbers = {layer: number for number, layer in enumerate(layers_of(network))}
        layers = [None if layer is None else numbers[layer] for layer in self._layers]
        levels = tuple(Level(numbers[layer], begin, size) for layer, begin, size in pools)
        described = self._layouts, self._reads, shape, self._like.dtype, self._with_head, levels
        return Plan(self._program.build(), layers, *described)

    def _plan_head(self, network: Network) -> int:
        """Plan the linear map of each part and batch norm; returns the embeddings' width."""
        parts, norm = network.parts, network.norm
        fc = parts.weight.detach()
        _checks.parameter(fc, "weight", (self._count, self._part_width, "c_out"), self._like)
        c_out = fc.shape[2]
        tensors = [
            None if tensor is None else tensor.detach()
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        ]
        for tensor in tensors:
            _checks.parameter(tensor, "norm", (c_out,), self._like)
        statistics = head.Norm(*(None if tensor is None else self._tensor(tensor) for tensor in tensors))
        sizes = (len(self._lens), self._count, self._part_width, c_out, *self._common())
        answer = self._program.place(ANSWER)
        self._append(parts, head.HeadCall(answer, self._parts, self._tensor(fc), statistics, norm.eps, *sizes))
        return c_out

    def _append(self, layer: nn.Module | None, call: NativeCall) -> None:
        self._program.append(call)
        self._layers.append(layer)

    def _append_with_workspace(self, layer: nn.Module, call: NativeCallWithWorkspace, size: int) -> None:
        call.workspace = self._workspace.reserve(size)
        self._append(layer, call)

    def _next(self, size: int) -> Area:
        """An area for the next map: the one that the current map is not in."""
        area = self._x = self._maps[self._x is self._maps[0]].reserve(size)
        self._maximum = self._convolution = None
        self._is_pooled = False
        return area

    def _next_support(self, size: int) -> Area:
        """An area for the next support: the one that the current one is not in."""
        area = self._support = self._supports[self._support is self._supports[0]].reserve(size)
        return area

    def _leave_outside(self) -> None:
        """Write nothing outside the map's support: the next layer reads inside alone, and so do all that read it."""
        if self._convolution is not None and not self._is_pooled:
            self._convolution.leaves_outside = True

    def _leave_out(self, convolution: arme.ForwardCall | arme.SilhouettesForwardCall) -> Area:
        """Do not write the convolution's map, the last one; returns the area that it would have been in."""
        area = convolution.y
        assert isinstance(area, Area)
        area.cancel_last()
        convolution.y = None
        return area

    def _pooled_map(self) -> tuple[Place, list[int], Place | None]:
        """Find what a pool reads, its lengths and its support: the frame maximum, or the map that it is to be of."""
        by_convolution = self._convolution is not None and self._convolution.finds_maxima
        if self._maximum is not None or by_convolution:
            return self._frame_maximum(), [1] * len(self._lens), None
        self._is_pooled = True
        return self._x, self._lens, self._support

    def _frame_maximum(self) -> Place:
        """The maximum over the frames of each sequence: by the convolution before if it can."""
        if self._maximum is not None:
            return self._maximum
        positions = len(self._lens) * self._height * self._width
        maximum = self._maximum = self._maxima.reserve(positions * self._channels * self._like.dtype.itemsize)
        if self._convolution is not None and self._convolution.finds_maxima:
            self._convolution.maximum = maximum
        else:
            self._is_pooled = True
            sizes = astp.MapSizes(self._lens, self._height, self._width, self._channels, *self._common())
            self._append(None, astp.FrameMaximumCall(maximum, None, self._x, sizes, self._support))
        return maximum

    def _begin_parts(self, count: int, width: int) -> Place:
        """The place of the next `count` parts of the first sequence."""
        if self._count and width != self._part_width:
            raise ValueError(f"proj must have the c_out of the pools before it, {self._part_width}, got {width}")
        self._part_width = width
        begin = self._program.place(self._parts, self._count * width * self._like.dtype.itemsize)
        self._count += count
        return begin

    def _parts_bytes(self, count: int) -> int:
        """Bytes of so many parts of all sequences."""
        return len(self._lens) * count * self._part_width * self._like.dtype.itemsize

    def _tensor(self, tensor: Tensor) -> Place:
        """The memory of a parameter, or a copy where that is not contiguous.

        It is that of a detached tensor, so that it is what was checked even if another thread converts the network.
        """
        values = tensor.contiguous()
        self.has_copies = self.has_copies or values.data_ptr() != tensor.data_ptr()
        self.held.append(values)
        return self._program.tensor(values)

    def _common(self) -> tuple[int, int]:
        """The last arguments of native functions: bytes of an element, threads."""
        return self._like.dtype.itemsize, self._threads

    def _positions(self) -> int:
        return sum(self._lens) * self._height * self._width

    def _map_bytes(self, channels: int) -> int:
        return self._positions() * channels * self._like.dtype.itemsize

    def _area(self, *shape: int) -> Area:
        """Memory for an array."""
        return self._program.area(math.prod(shape) * self._like.dtype.itemsize)


def layers_of(network: Network) -> list[nn.Module]:
    """The layers that calls of a plan belong to, by number."""
    return [*(layer for layer, _ in own_layers(network)), network.parts]
