"""The feature maps of a network on their way through it: what every way of computing them offers, and the eager way.

A network calls a method of its feature maps for each layer. The eager way computes the layer at once; an execution plan
(cpu_plan.py) computes everything at the end.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from hstl_fast import backends
from hstl_fast._torch_private import is_tracing
from hstl_fast.backends import ON_GPUS
from hstl_fast.layout import channels_last
from hstl_fast.models.eligibility import Network, backend_with_support, is_debugging, may_own_gradients
from hstl_fast.models.head import apply_head
from hstl_fast.models.inputs import scaled
from hstl_fast.nn import ARME, FTA
from hstl_fast.ops import _dispatch
from hstl_fast.ops._library import under_autocast
from hstl_fast.ops.arme import arme_of_silhouettes, arme_with_maximum, wants_gradient
from hstl_fast.ops.arme_maximum import arme_maximum
from hstl_fast.ops.astp import frame_maximum, with_frame_maximum
from hstl_fast.ops.max_pool import max_pool
from hstl_fast.ops.support import Support, check_zero_outside, grown, max_pooled, windowed
from hstl_fast.reference import fta_lengths


class FeatureMaps(Protocol):
    """The feature maps `[n, c, t, h, w]` of all sequences, and the parts pooled from them, as a network walks them."""

    def convolve(self, layer: nn.Module) -> None:
        """Apply an `ARME`, or a layer that a user has put in its place."""

    def max_pool(self) -> None:
        """Take the 2x2 spatial maximum."""

    def aggregate(self, layer: nn.Module) -> None:
        """Apply an `FTA`; every sequence keeps a third of its frames."""

    def reduce(self) -> None:
        """Keep only the maximum over the frames of each sequence: nothing but pools follows."""

    def pool(self, layer: nn.Module) -> None:
        """Pool parts `[n, c, m]` of the map by an `ASTP` or a `StripPool`; they are added to those before."""


class EagerMaps:
    """Feature maps that are computed when they are asked for.

    Args:
        network: an `HSTL`.
        silhouettes: `[n, t, h, w]`, uint8 0..255 or floating 0..1, on the network's device.
        lengths: of the sequences packed along t; empty where they are not packed.
    """

    def __init__(self, network: Network, silhouettes: Tensor, lengths: list[int]) -> None:
        backend = backend_with_support(network)
        if torch.is_grad_enabled() and silhouettes.requires_grad:
            backend = "reference"  # the gradients of the maps themselves are wanted, outside the support too
        self._backend = backend
        self._lengths = lengths
        # Where the map may be non-zero, since outside it is exactly 0. None: anywhere.
        self._support = None if backend == "reference" else silhouettes != 0
        self._owns_gradient = self._support is not None and may_own_gradients()
        self._pooled: list[Tensor] = []
        # A pool of the map that waits for the next layer, since a convolution may find the frame maximum as well.
        self._waiting: nn.Module | None = None
        # A convolution that waits for the next layer, since of the last one only the frame maximum is kept.
        self._deferred: ARME | None = None
        if backend in ON_GPUS and silhouettes.dtype == torch.uint8:
            self._x = silhouettes[:, None]  # the first layer reads bytes as 0..1
        else:
            self._x = channels_last(scaled(silhouettes, network.parts.weight.dtype)[:, None])

    def convolve(self, layer: nn.Module) -> None:
        """Compute an `ARME`, or a layer that a user has put in its place."""
        self._convolve_deferred()
        if self._support is None:
            self._x = layer(self._x, self._lengths or None)
            return
        assert isinstance(layer, ARME)
        if self._may_defer(layer):
            self._pool_waiting()
            self._deferred = layer
            return
        support = self._grown(layer)
        if self._waiting is not None:
            shape = (layer.split, layer.negative_slope, self._lengths)
            pool, self._waiting = self._waiting, None
            self._x, maximum = arme_with_maximum(self._x, layer.weight, *shape, support, self._backend)
            self._support = support.y
            self._pooled.append(pool(maximum))
            self._check()
        elif self._x.dtype == torch.uint8:
            shape = (layer.split, layer.negative_slope, self._lengths)
            self._x = arme_of_silhouettes(self._x, layer.weight, *shape, support, self._backend)
            self._support = support.y
            self._check()
        else:
            self._apply(layer, support)

    def max_pool(self) -> None:
        """Compute the 2x2 spatial maximum."""
        self._pool_waiting()
        self._x = max_pool(self._x, self._owns_gradient and self._x.requires_grad)
        if self._support is not None:
            self._support = max_pooled(self._support, self._backend)
            self._check()

    def aggregate(self, layer: nn.Module) -> None:
        """Compute an `FTA`, or a layer that a user has put in its place."""
        self._pool_waiting()
        if self._support is None:
            self._x = layer(self._x, self._lengths or None)
        else:
            assert isinstance(layer, FTA)
            self._apply(layer, windowed(self._support, self._lengths, self._backend))
        self._lengths = fta_lengths(self._lengths)

    def reduce(self) -> None:
        """Compute the frame maximum, if the backend can; otherwise every pool that follows computes it."""
        if self._deferred is not None:
            layer, self._deferred = self._deferred, None
            shape = (layer.split, layer.negative_slope, self._lengths)
            self._x = arme_maximum(self._x, layer.weight, *shape, self._grown(layer), self._backend)
            self._lengths, self._support = [], None
            return
        self._pool_waiting()
        if self._support is not None and self._is_indexable():
            self._x = frame_maximum(self._x, Support(self._support), self._lengths, self._backend)
            self._lengths, self._support = [], None

    def pool(self, layer: nn.Module) -> None:
        """Compute an `ASTP` or a `StripPool`, and the frame maximum with it if the map is read again."""
        self._pool_waiting()
        if self._support is None:
            self._pooled.append(layer(self._x, self._lengths or None))
        elif self._has_other_readers():
            self._waiting = layer
            if not self._may_wait():
                self._pool_waiting()
        else:
            self._pooled.append(layer(self._x, self._lengths or None, Support(self._support)))
            # A layer that follows reads the map too: what it does to its own gradient it does not do to the pool's.
            self._owns_gradient = False

    def head(self, network: Network, batch_statistics: bool) -> Tensor:
        """Compute the embeddings `[n, p, c]` of the parts pooled so far."""
        self._pool_waiting()
        return apply_head(network, self._pooled, batch_statistics)

    def _may_defer(self, layer: ARME) -> bool:
        """Whether the layer may wait for the next one, in a training on the CPU whose maps nothing else sees."""
        if self._backend != "cpu" or not self._owns_gradient or is_debugging():
            return False
        has_gradient = wants_gradient(self._x) or wants_gradient(layer.weight)
        return has_gradient and under_autocast(self._x) is self._x and self._is_indexable()

    def _grown(self, layer: ARME) -> Support:
        """The supports of the layer's input, which is the map, and of its output."""
        assert self._support is not None
        return grown(self._support, layer.split, self._lengths, self._backend, self._owns_gradient)

    def _convolve_deferred(self) -> None:
        """Compute the convolution that waits for the next layer, whose map that layer reads."""
        if self._deferred is not None:
            layer, self._deferred = self._deferred, None
            self._apply(layer, self._grown(layer))

    def _pool_waiting(self) -> None:
        """Compute what waits for the next layer: a convolution; or a pool, and the frame maximum by itself."""
        self._convolve_deferred()
        if self._waiting is None or self._support is None:
            return
        pool, self._waiting = self._waiting, None
        support = Support(self._support, owns_gradient=self._owns_gradient)
        self._x, maximum = with_frame_maximum(self._x, support, self._lengths, self._backend)
        self._pooled.append(pool(maximum))

    def _may_wait(self) -> bool:
        """Whether a convolution that follows may find the map's frame maximum, and add the gradients of both."""
        same_type = under_autocast(self._x) is self._x
        return self._owns_gradient and same_type and backends.fuses_into_dgrad(self._backend)

    def _apply(self, layer: nn.Module, support: Support) -> None:
        self._x, self._support = layer(self._x, self._lengths or None, support), support.y
        self._check()

    def _check(self) -> None:
        if self._support is not None and is_debugging():
            check_zero_outside(self._x, self._support)

    def _has_other_readers(self) -> bool:
        """Whether the pool and the next layer, both our own, will each have a gradient for this map."""
        if torch.compiler.is_compiling() or is_tracing():
            return False
        return torch.is_grad_enabled() and self._x.requires_grad and self._is_indexable()

    def _is_indexable(self) -> bool:
        """Whether the backend finds these sequences' maxima, as their pools will ask."""
        longest = 0 if torch.compiler.is_compiling() else max(self._lengths or [self._x.shape[2]])
        return _dispatch.why_not("astp", self._backend, self._x.device, self._x.dtype, longest) is None
