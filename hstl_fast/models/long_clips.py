"""Clips that are too long for the memory: the network window by window, with the same result.

Everything that leaves the feature maps is a maximum over frames. So the maxima of windows, each over the frames whose
receptive field lies within the window, are combined by a maximum, and pooled at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hstl_fast.backends.cpu import astp
from hstl_fast.models.config import HSTLConfig
from hstl_fast.models.cpu_plan import ANSWER, Level, Plan, PlannedMaps, PooledMaximum, layers_of
from hstl_fast.models.eligibility import Network
from hstl_fast.models.feature_maps import EagerMaps, FeatureMaps
from hstl_fast.models.head import apply_head
from hstl_fast.models.kept_plans import answer_by_plan
from hstl_fast.models.plan_state import Asked

# The frames of a window at least. A fifteenth to a tenth of them is computed twice, and maps of so many frames take 0.4
# GB with 64 channels.
FRAMES_OF_A_WINDOW = 360
# Frame t of `FTA` is made of frames 3 t - 1 to 3 t + 3.
_STRIDE, _BEFORE, _AFTER = 3, 1, 3

# A pool of the network, and the maximum over frames `[1, c, 1, h, w]` of the map that it pools.
Maximum = tuple[nn.Module, Tensor]


class Window:
    """A window of a clip, and the frames of its current map that are as in the whole clip.

    Args:
        start: Its first frame in the clip, a multiple of 3.
        stop: The frame after its last one.
        frames: The frames of the clip.
    """

    def __init__(self, start: int, stop: int, frames: int) -> None:
        self.start, self.stop = start, stop
        self._begins, self._ends = start == 0, stop == frames
        # Frames `first` to before `last` of the map are as in the whole clip.
        self.first, self.last = 0, stop - start

    @property
    def cut(self) -> tuple[bool, bool]:
        """Whether the clip goes on before the window, and after it."""
        return not self._begins, not self._ends

    def convolve(self) -> None:
        """Follow a convolution: a frame is lost at every end that is not one of the clip."""
        self.first += not self._begins
        self.last -= not self._ends

    def aggregate(self) -> None:
        """Follow `FTA`."""
        self.first = 0 if self._begins else -(-(self.first + _BEFORE) // _STRIDE)
        frames = self.stop - self.start
        self.last = frames // _STRIDE if self._ends else (self.last - 1 - _AFTER) // _STRIDE + 1


def windows(config: HSTLConfig, frames: int, longest: int) -> Iterator[Window]:
    """Cut a clip into windows that overlap.

    Args:
        config: The shape of the network.
        frames: The frames of the clip.
        longest: The most frames of a window.

    Yields:
        The windows, in order; at every level of the network each frame is as in the whole clip in one of them.

    Raises:
        ValueError: `longest` is too short for the network's receptive field.
    """
    longest -= longest % _STRIDE
    inner = Window(_STRIDE, _STRIDE + longest, 2 * (_STRIDE + longest))
    for _ in range(len(config.stem) + len(config.stages[0].channels)):
        inner.convolve()
    inner.aggregate()
    for _ in range(sum(len(stage.channels) for stage in config.stages[1:])):
        inner.convolve()
    step = _STRIDE * (inner.last - inner.first)
    if step <= 0:
        raise ValueError(f"longest must be more frames for the receptive field of the network; got {longest}")
    start = 0
    while start + longest < frames:
        yield Window(start, start + longest, frames)
        start += step
    yield Window(start, frames, frames)


class WindowMaps(EagerMaps):
    """Feature maps of a window, which keep the frame maximum that every pool asks for.

    Args:
        network: An `HSTL`.
        silhouettes: `[1, t, h, w]`, uint8 0..255 or floating 0..1, on the network's device.
        window: The window.
        maxima: The maxima of the windows before, which become those of this window, too.
    """

    def __init__(self, network: Network, silhouettes: Tensor, window: Window, maxima: list[Maximum]) -> None:
        super().__init__(network, silhouettes, [])
        self._window, self._maxima, self._pools = window, maxima, 0

    def convolve(self, layer: nn.Module) -> None:
        """Compute an `ARME`."""
        super().convolve(layer)
        self._window.convolve()

    def aggregate(self, layer: nn.Module) -> None:
        """Compute an `FTA`."""
        super().aggregate(layer)
        self._window.aggregate()

    def reduce(self) -> None:
        """Keep the map, for the maximum over all its frames is not wanted."""

    def pool(self, layer: nn.Module) -> None:
        """Take the maximum over the frames that are as in the whole clip; `layer` pools it in the end."""
        frames = self._x[0].permute(1, 2, 3, 0)[self._window.first : self._window.last]  # t h w c
        # Twenty times as fast as the maximum over the third of five axes.
        maximum = frames.flatten(1).amax(0).view(frames.shape[1:]).permute(2, 0, 1)[None, :, None]
        if self._pools == len(self._maxima):
            self._maxima.append((layer, maximum))
        else:
            before = self._maxima[self._pools][1]
            self._maxima[self._pools] = (layer, torch.maximum(before, maximum))
        self._pools += 1


class PlannedWindowMaps(PlannedMaps):
    """Planned feature maps of a window, whose answer is the frame maximum of every map that is pooled.

    Args:
        silhouettes: `[1, t, h, w]`, uint8 or floating.
        dtype: The maps' type.
        window: The window.
    """

    def __init__(self, silhouettes: Tensor, dtype: torch.dtype, window: Window) -> None:
        frames = silhouettes.shape[1]
        super().__init__(tuple(silhouettes.shape), silhouettes.dtype, dtype, [frames], with_head=False)
        self._window, self._found, self._size = window, list[PooledMaximum](), 0

    def convolve(self, layer: nn.Module) -> None:
        """Plan an `ARME`."""
        super().convolve(layer)
        self._window.convolve()

    def aggregate(self, layer: nn.Module) -> None:
        """Plan an `FTA`."""
        super().aggregate(layer)
        self._window.aggregate()

    def reduce(self) -> None:
        """Keep the map, for the maximum over all its frames is not wanted."""

    def pool(self, layer: nn.Module) -> None:
        """Plan the maximum over the frames that are as in the whole clip; `layer` pools it in the end."""
        shape = (self._height, self._width, self._channels)
        if self._maximum is None:
            self._is_pooled = True  # so that the convolution before writes the whole map
            itemsize, positions, first = self._like.dtype.itemsize, shape[0] * shape[1], self._window.first
            self._maximum = self._program.place(ANSWER, self._size * itemsize)
            x = self._program.place(self._x, first * positions * self._channels * itemsize)
            within = self._program.place(self._support, first * positions)
            sizes = astp.MapSizes([self._window.last - first], *shape, *self._common())
            self._append(layer, astp.FrameMaximumCall(self._maximum, None, x, sizes, within))
            self._size += math.prod(shape)
        self._found.append((layer, self._size - math.prod(shape), shape))

    def plan(self, network: Network) -> Plan:
        """Finish the plan."""
        return self._plan(network, (self._size,), self._found)


class ClipMaxima:
    """The frame maximum of every pool over the windows of a clip.

    Args:
        network: An `HSTL`.
        walk: Applies every layer of a network, which it is given, to feature maps.
    """

    def __init__(self, network: Network, walk: Callable[[Any, FeatureMaps], None]) -> None:
        self._network, self._walk = network, walk
        # By plans, and by layers.
        self._planned: Tensor | None = None
        self._levels: tuple[Level, ...] = ()
        self._maxima: list[Maximum] = []

    def add(self, silhouettes: Tensor, window: Window) -> None:
        """Compute the network on a window, by an execution plan if one may stand for it."""

        def make(network: Network, _: bool) -> PlannedMaps:
            maps = PlannedWindowMaps(silhouettes, network.parts.weight.dtype, window)
            self._walk(network, maps)
            return maps

        if not self._maxima:
            found = answer_by_plan(Asked(self._network, silhouettes, [], False, window.cut), make)
            if found is not None:
                plan, maxima = found
                self._planned = maxima if self._planned is None else torch.maximum(self._planned, maxima)
                self._levels = plan.levels
                return
            self._maxima = self._by_layer()  # something that a plan does not show has come up
        self._walk(self._network, WindowMaps(self._network, silhouettes, window, self._maxima))

    def embeddings(self) -> Tensor:
        """Pool the maxima: embeddings `[1, P, C]`."""
        pooled = [pool(maximum, None) for pool, maximum in self._maxima or self._by_layer()]
        return apply_head(self._network, pooled, batch_statistics=False)

    def _by_layer(self) -> list[Maximum]:
        """The maxima that plans have found so far."""
        if self._planned is None:
            return []
        layers = layers_of(self._network)
        return [(layers[level.layer], _map(self._planned, level)) for level in self._levels]


def _map(maxima: Tensor, level: Level) -> Tensor:
    """The maxima of a level as a feature map `[1, c, 1, h, w]`."""
    flat = maxima[level.begin : level.begin + math.prod(level.shape)]
    return flat.view(level.shape).permute(2, 0, 1)[None, :, None]
