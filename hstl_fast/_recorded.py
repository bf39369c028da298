"""The feature maps of a network in evaluation, computed by native calls that follow one another without Python between.

Between two layers the interpreter would find its own memory and torch's out of the processor's caches every time: a
seventh of a clip's time. So the layers are written down first and computed at the end. What is known then also saves
work: frame maxima are found while a convolution's output is in registers, two blocks of memory hold all maps in turn,
and a map of which only the maximum is wanted is never written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast.nn import ARME, ASTP, FTA, SeparateFCs, StripPool
from hstl_fast.ops import _algorithm, _checks, _native
from hstl_fast.ops._memory import memory
from hstl_fast.ops._packed import packed_weights
from hstl_fast.ops._shared import frames_of
from hstl_fast.reference import fta_lengths

READ: dict[type[nn.Module], tuple[str, ...]] = {
    ARME: ("weight",),
    ASTP: ("proj", "p"),
    FTA: ("weight", "bias"),
    StripPool: ("p",),
    SeparateFCs: ("weight",),
    nn.BatchNorm1d: ("running_mean", "running_var", "weight", "bias"),
}
"""What native calls read of each kind of module that they may stand for."""
FORWARDS = {kind: kind.forward for kind in READ}


def is_recordable(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a native call may stand for the module: its class is what it was, and all it reads is ordinary memory."""
    kind = type(module)
    if kind not in READ or kind.forward is not FORWARDS[kind]:
        return False
    tensors = {name: getattr(module, name) for name in READ[kind]}
    return all(_is_plain(t, dtype) or (t is None and name == "proj") for name, t in tensors.items())


def _is_plain(x: object, dtype: torch.dtype) -> bool:
    if type(x) is not Tensor and type(x) is not nn.Parameter:
        return False
    return x.dtype == dtype and x.device.type == "cpu" and x.layout == torch.strided and not x.is_neg()


def scaled(silhouettes: Tensor, dtype: torch.dtype) -> Tensor:
    """Silhouettes as `dtype` in 0..1."""
    return silhouettes.to(dtype).div_(255) if silhouettes.dtype == torch.uint8 else silhouettes.to(dtype)


class _Room:
    """Memory for one thing after another, as much as the largest needs."""

    def __init__(self) -> None:
        self._sizes = [0]
        self._memory: Tensor | None = None

    def reserve(self, size: int) -> "_Room":
        self._sizes.append(size)
        return self

    def take_back(self) -> None:
        """Forget the last reservation."""
        self._sizes.pop()

    def allocate(self) -> None:
        if size := max(self._sizes):
            self._memory = memory(size)

    def data_ptr(self) -> int:
        return 0 if self._memory is None else self._memory.data_ptr()


class Call(NamedTuple):
    """A native function and what it is given, for a layer; None for what belongs to no layer."""

    layer: nn.Module | None
    function: Callable[..., None]
    arguments: tuple[Any, ...]


@dataclass
class _Call:
    """A call to be: tensors and rooms stand for their addresses, None for no address."""

    layer: nn.Module | None
    function: Callable[..., None]
    arguments: tuple[Any, ...]

    def ready(self) -> Call:
        """The call, once the rooms are allocated."""
        return Call(self.layer, self.function, tuple(map(_address, self.arguments)))


def _address(argument: Any) -> Any:
    if argument is None:
        return 0
    return argument.data_ptr() if isinstance(argument, (Tensor, _Room)) else argument


@dataclass
class _Convolution:
    """A call of `arme_forward` of which more is known later: who wants the map and who its maxima."""

    layer: ARME
    x: "Tensor | _Room"
    packed: Tensor
    workspace: _Room
    supports: tuple[Tensor, Tensor]
    sizes: tuple[Any, ...]
    negative_slope: float
    last: tuple[int, int, int]
    y: _Room | None
    maximum: Tensor | None = None
    halved: _Room | None = None

    @property
    def finds_maximum(self) -> bool:
        """Whether the maximum is to be found on the way, if somebody wants it."""
        return _finds_maximum(self.last, self.sizes[0])

    @property
    def finds_2x2_maximum(self) -> bool:
        """Whether the 2x2 maximum is to be found on the way.

        The convolution's tiles begin at even columns then, which changes how sums round: this must not depend on the
        number of threads.
        """
        return self.last[0] != _algorithm.DIRECT and all(rows % 2 == 0 for rows in (*self.sizes[1], self.sizes[2]))

    def ready(self) -> Call:
        """The call, once everything is known and the rooms are allocated."""
        tensors = (self.y, self.x, self.packed, self.workspace, *self.supports)
        arguments = (*tensors, *self.sizes, self.negative_slope, *self.last, self.maximum, self.halved)
        return _Call(self.layer, _native.require_cpu().arme_forward, arguments).ready()


def _finds_maximum(last: tuple[int, int, int], lens: list[int]) -> bool:
    """Whether a convolution can find the frame maximum on its way, and that pays: every thread beyond the first has
    maxima of its own, which are to be few beside the frames."""
    algorithm, _, threads = last
    return algorithm != _algorithm.DIRECT and 2 * (threads - 1) * len(lens) <= sum(lens)


class RecordedMaps:
    """Feature maps `x` [n, c, t, h, w] of all sequences, and what is to become of them; `finish` computes it.

    silhouettes: [n, t, h, w], uint8 0..255 or of dtype. dtype: the maps' type. lengths: of packed sequences, else [].
    """

    def __init__(self, silhouettes: Tensor, dtype: torch.dtype, lengths: list[int]) -> None:
        self._native = _native.require_cpu()
        self._like = torch.empty(0, dtype=dtype, device="cpu")
        self._x: Tensor | _Room = silhouettes.contiguous()
        self._lens = frames_of(silhouettes[:, None], lengths)
        _, _, self._height, self._width = silhouettes.shape
        self._channels = 1
        self._support = (silhouettes != 0).contiguous()
        self._maximum: Tensor | None = None
        self._records: list[_Call | _Convolution] = []
        self._convolution: _Convolution | None = None  # what `x` comes from, if it can do more
        self._rooms = (_Room(), _Room())
        self._halved = _Room()  # for a 2x2 maximum found beside a map that is read, too
        self._workspace = _Room()
        self._pooled: list[Tensor] = []
        self._common = (dtype.itemsize, torch.get_num_threads())

    def convolve(self, layer: nn.Module) -> None:
        """Record an `ARME`."""
        assert isinstance(layer, ARME)
        rows, c_in = _checks.rows(layer.split, self._height), self._channels
        _checks.parameter(layer.weight, "weight", (len(rows), "c_out", c_in, 3, 3, 3), self._like)
        c_out = layer.weight.shape[1]
        algorithm = _algorithm.choose(None, "cpu", self._like.dtype)
        algorithm = _algorithm.native_code(algorithm, self._like.dtype, c_in, c_out, self._lens)
        grown = torch.empty_like(self._support)
        addresses = (grown.data_ptr(), self._support.data_ptr())
        self._native.grow_support(*addresses, self._lens, rows, self._width, self._common[1])
        sizes, last = (self._lens, rows, self._width, c_in, c_out), (algorithm, *self._common)
        finds_maximum, slope = _finds_maximum(last, self._lens), _checks.slope(layer.negative_slope)
        packed = packed_weights(layer.weight, self._like.dtype, rows, algorithm, keep=True)
        workspace = self._workspace.reserve(self._native.arme_workspace(*sizes, *last, finds_maximum))
        x, y = self._x, self._next(sum(self._lens) * self._height * self._width * c_out)
        if isinstance(x, Tensor) and x.dtype == torch.uint8 and algorithm == _algorithm.DIRECT:
            shape = (self._lens, rows, self._width, c_out, slope, *self._common)
            self._record(layer, self._native.silhouettes_forward, y, x, packed, workspace, grown, *shape)
        else:
            x = scaled(x, self._like.dtype) if isinstance(x, Tensor) else x
            supports = (self._support, grown)
            self._convolution = _Convolution(layer, x, packed, workspace, supports, sizes, slope, last, y)
            self._records.append(self._convolution)
        self._support, self._channels = grown, c_out

    def aggregate(self, fta: FTA) -> None:
        """Record `fta`."""
        rows, c = _checks.rows(fta.split, self._height), self._channels
        _checks.parameter(fta.weight, "weight", (len(rows), 2, c, c), self._like)
        _checks.parameter(fta.bias, "bias", (len(rows), 2, c), self._like)
        windows = fta_lengths(self._lens)
        support = self._support.new_empty((1, sum(windows), self._height, self._width))
        self._native.window_support(
            support.data_ptr(), self._support.data_ptr(), self._lens, self._height, self._width, self._common[1]
        )
        sizes = (self._lens, rows, self._width, c, *self._common)
        workspace = self._workspace.reserve(self._native.fta_workspace(*sizes))
        means = self._empty(sum(windows), len(rows), c)
        parameters = (_dense(fta.weight), _dense(fta.bias))
        x, y = self._x, self._next(sum(windows) * self._height * self._width * c)
        self._record(fta, self._native.fta_forward, y, means, x, *parameters, workspace, *sizes, support)
        self._lens, self._support = windows, support

    def halve(self) -> None:
        """Record the 2x2 spatial maximum."""
        frames, sizes = sum(self._lens), (self._height, self._width)
        self._height, self._width = self._height // 2, self._width // 2
        support = self._support.new_empty((1, frames, self._height, self._width))
        self._native.halve_support(support.data_ptr(), self._support.data_ptr(), frames, *sizes)
        elements = frames * self._height * self._width * self._channels
        last = self._convolution
        if last is not None and last.finds_2x2_maximum:
            is_read = self._maximum is not None and last.maximum is None
            self._x = last.halved = self._halved if is_read else self._leave_out(last)
            last.halved.reserve(elements * self._common[0])
            self._maximum = self._convolution = None
        else:
            x, y = self._x, self._next(elements)
            self._record(None, self._native.halve, y, x, support, frames, *sizes, self._channels, *self._common)
        self._support = support

    def reduce(self) -> None:
        """Note that nobody wants more of the last map than its pools: the maximum is enough."""
        self._frame_maximum(None)
        if self._convolution is not None and self._convolution.finds_maximum:
            self._leave_out(self._convolution)

    def pooled(self, pool: nn.Module) -> Tensor:
        """Record an `ASTP` or a `StripPool`; what it returns is filled by `finish`."""
        assert isinstance(pool, (ASTP, StripPool))
        maximum = self._frame_maximum(pool)
        if isinstance(pool, StripPool):
            proj, rows = None, _checks.bins(pool.bins, self._height)
            _checks.parameter(pool.p, "p", (1,), self._like)
        else:
            proj, rows = pool.proj, _checks.rows(pool.split, self._height)
            _checks.parameter(pool.p, "p", (len(rows),), self._like)
        p = pool.p.detach().expand(len(rows)).contiguous()
        c_in = c_out = self._channels
        if proj is not None:
            _checks.parameter(proj, "proj", ("c_out", c_in), self._like)
            c_out = proj.shape[0]
        sizes = (len(self._lens), rows, self._width, c_in, c_out, *self._common)
        workspace = self._workspace.reserve(self._native.astp_workspace(*sizes))
        pooled = self._empty(len(self._lens), len(rows), c_out)
        self._pooled.append(pooled)
        self._record(pool, self._native.astp_forward, pooled, maximum, _dense(proj), p, workspace, *sizes)
        return pooled.transpose(1, 2)

    def finish(self) -> None:
        """Compute everything."""
        for _, function, arguments in self.calls():
            function(*arguments)

    def mapped(self, parts: SeparateFCs, norm: nn.BatchNorm1d) -> Tensor:
        """After `finish`: `norm`, in evaluation, of `parts` of everything pooled, `[N, P, C]`."""
        x = torch.cat(self._pooled, 1)
        n, count, c_in = x.shape
        _checks.parameter(parts.weight, "weight", (count, c_in, "c_out"), x)
        c_out = parts.weight.shape[2]
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        for tensor in tensors:
            _checks.parameter(tensor, "norm", (c_out,), x)
        dense = [_dense(tensor) for tensor in (parts.weight, *tensors)]
        y = self._empty(n, count, c_out)
        _, function, arguments = _Call(
            parts, self._native.map_parts, (y, x, *dense, norm.eps, n, count, c_in, c_out, *self._common)
        ).ready()
        function(*arguments)
        return y

    def calls(self) -> list[Call]:
        """What is to be computed, in order, with memory for it."""
        for room in (*self._rooms, self._halved, self._workspace):
            room.allocate()
        return [record.ready() for record in self._records]

    def _record(self, layer: nn.Module | None, function: Callable[..., None], *arguments: Any) -> None:
        self._records.append(_Call(layer, function, arguments))

    def _next(self, elements: int) -> _Room:
        """Room for the next map: not where this one is."""
        room = self._rooms[0] if self._x is not self._rooms[0] else self._rooms[1]
        self._x = room.reserve(elements * self._common[0])
        self._maximum = self._convolution = None
        return room

    def _leave_out(self, convolution: _Convolution) -> _Room:
        """Do not write the convolution's map, the last; the room it would have been in."""
        room = convolution.y
        assert room is not None
        room.take_back()
        convolution.y = None
        return room

    def _frame_maximum(self, reader: nn.Module | None) -> Tensor:
        """The maximum over the frames of each sequence: by the convolution before if it can, else for `reader`."""
        if self._maximum is not None:
            return self._maximum
        maximum = self._maximum = self._empty(len(self._lens), self._height, self._width, self._channels)
        last = self._convolution
        if last is not None and last.finds_maximum:
            last.maximum = maximum
        else:
            sizes = (self._lens, self._height, self._width, self._channels, *self._common)
            self._record(reader, self._native.frame_maximum, maximum, None, self._x, *sizes, self._support)
        return maximum

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._like.dtype, device="cpu")


def _dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach().contiguous()
