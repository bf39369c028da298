"""Clips that are too long for the memory: the network window by window, with the same result.

Everything that leaves the feature maps is a maximum over frames. So the maxima of windows, each over the frames whose
receptive field lies within the window, are combined by a maximum, and pooled at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hstl_fast.models.config import HSTLConfig
from hstl_fast.models.eligibility import Network
from hstl_fast.models.feature_maps import EagerMaps
from hstl_fast.models.head import apply_head

# The frames of a window at least; a twentieth of them is computed twice.
FRAMES_OF_A_WINDOW = 720
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


def embeddings_of_maxima(network: Network, maxima: list[Maximum]) -> Tensor:
    """Pool the maxima of a whole clip.

    Args:
        network: An `HSTL`.
        maxima: The frame maximum of every pool, in their order.

    Returns:
        The embedding `[1, P, C]`.
    """
    return apply_head(network, [pool(maximum, None) for pool, maximum in maxima], batch_statistics=False)
