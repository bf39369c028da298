"""Distances in blocks of a bounded size, how far they may be off, and those of single pairs in float64."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hstl_fast.backends.cpu import distances as native
from hstl_fast.evaluation.distances import centre_of, check_metric, check_shapes, implementation, norms
from hstl_fast.evaluation.product_form import NEAR
from hstl_fast.progress import Progress, silent

# Bytes of a block of distances and of its probes in the kernel's layout.
BLOCK_BYTES = 384 << 20
# The kernel takes so many probes at a time; blocks are multiples of it.
_PROBES = 512
# The unit roundoff as a share of the difference of 1 and the next number, and a twentieth more.
_UNIT = 1.05 / 2


class Comparison:
    """Probes and a gallery whose distances are asked for in blocks.

    How far a distance of a block may be off. With the unit roundoff u (2^-24 in float32), s the most roundings on the
    way of any term of a sum over C channels, a and b the two vectors of a part after the centre was subtracted:

    * subtracting the centre moves a and b by at most u|a| and u|b|, their distance by at most u(|a| + |b|);
    * |a|^2, |b|^2 and ab are off by at most s u |a|^2, s u |b|^2 and s u |a||b|, and the two additions by at most
      3 u (|a|^2 + |b|^2), so the squared distance by at most E = (2s + 3) u (|a|^2 + |b|^2), as 2|a||b| is at most
      |a|^2 + |b|^2;
    * the kernel keeps a squared distance d^2 only above NEAR (|a|^2 + |b|^2). The root of a number that is off by E is
      off by at most E / (d + d'), about E / 2d, which is at most (s + 2) u sqrt((|a|^2 + |b|^2) / NEAR), and
      sqrt(|a|^2 + |b|^2) is at most |a| + |b|;
    * a distance from differences is off by at most (s / 2 + 3) u times itself, which is less, as it is at most
      sqrt(NEAR) (|a| + |b|);
    * the root, the mean over P parts and the division add at most (P + 2) u of the mean of |a| + |b|.

    In all u (4 (s + 2) + P + 4) (A + B), A and B the means of |a| and |b| over the parts, B for the gallery's largest;
    a term for squares that underflow is added. For the cosine, vectors of length 1 are off by (s / 2 + 3) u each and
    their product by s u more, the sum over parts by P u: u (2s + P + 9). A twentieth more covers products of roundings
    and the rounding of the bound itself.

    The kernel adds 64 products in a row, these sums in a row, and squares in four vectors of at least 16 bytes: s is at
    most 72 + C / 16, in float64 72 + C / 8. torch may add in any order: s is C + 8.

    Attributes:
        order: The rows of the gallery that are the columns of the blocks, int64 `[k]`.
        bounds: How far any distance of a probe may be off, float64 `[n]`; infinite where squares overflow.
    """

    def __init__(
        self, probe: NDArray[Any], gallery: NDArray[Any], metric: str, order: NDArray[np.intp] | None = None
    ) -> None:
        check_metric(metric)
        self.probe, self.gallery = _tensors(probe, gallery)
        check_shapes(self.probe, self.gallery)
        self.order = torch.arange(len(gallery)) if order is None else torch.from_numpy(order.astype(np.int64))
        self.cosine = metric == "cosine"
        self._compute = implementation(self.probe)
        # The norms that may overflow are those from zero for the cosine, and those from the centre for differences.
        self._centre = self.gallery.new_zeros(self.gallery.shape[1:]) if self.cosine else centre_of(self.gallery)
        largest = norms("gallery", self.gallery, self._centre, self._compute).numpy().max(initial=0)
        self.bounds = self._bounds(norms("probe", self.probe, self._centre, self._compute).numpy() + largest)

    def blocks(self, progress: Progress | None = None) -> Iterator[tuple[int, Tensor]]:
        """Compute all distances.

        Args:
            progress: Called as `progress(stage, done, total)` with the number of probes, or None.

        Yields:
            The number of the first probe of a block, and its distances `[b, k]`, which are overwritten by the next.
        """
        tell, total = progress or silent, len(self.probe)
        parts, channels = self.gallery.shape[1:]
        size = min(block_size(len(self.order), parts, channels, self.probe.dtype.itemsize), total)
        memory = torch.empty(size, len(self.order), dtype=self.probe.dtype)
        tell("comparing", 0, total)
        for start in range(0, total, max(1, size)):
            some = self.probe[start : start + size]
            block = memory[: len(some)]
            if np.isinf(self.bounds).any():
                block.zero_()  # so that every pair counts as a near-tie
            elif len(self.order):
                self._compute.part_distances(some, self.gallery, self.order, self._centre, self.cosine, block)
            yield start, block
            tell("comparing", start + len(some), total)

    def exact(self, probe_rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """Compute the distances of some pairs in float64.

        Args:
            probe_rows: A probe for each pair, int `[pairs]`.
            columns: A column of the blocks for each pair, int `[pairs]`.

        Returns:
            Distances float64 `[pairs]`.
        """
        # The indices that `nonzero` gives are not contiguous, and the kernel reads them in a row.
        rows = torch.from_numpy(np.ascontiguousarray(probe_rows))
        others = self.order[torch.from_numpy(columns)]
        pairs: Tensor = self._compute.pair_distances(self.probe, self.gallery, rows, others, self.cosine)
        return pairs.numpy()

    def _bounds(self, together: NDArray[np.float64]) -> NDArray[np.float64]:
        """The bounds, `[n]`, where `together` is A + B."""
        parts, channels = self.gallery.shape[1:]
        numbers = torch.finfo(self.probe.dtype)
        is_native = self._compute is native
        share, least = product_bound(parts, channels, self.probe.dtype, is_native)
        bounds: NDArray[np.float64] = share * together + least
        if self.cosine:
            bounds = np.full(
                len(together), _UNIT * numbers.eps * (2 * _terms(channels, numbers, is_native) + parts + 9)
            )
        # One part's norm is at most `parts` times the mean; the squares of two are added.
        bounds[~(parts * together < math.sqrt(numbers.max) / 2)] = math.inf
        return bounds


def product_bound(parts: int, channels: int, dtype: torch.dtype, is_native: bool) -> tuple[float, float]:
    """Find how far a Euclidean distance of the product form may be off, as `Comparison` derives it.

    Args:
        parts: Parts of an embedding.
        channels: Channels of a part.
        dtype: The type that is computed in.
        is_native: Whether the native kernel computes, or torch.

    Returns:
        A share and a distance: the bound is the share of A + B, the means over the parts of the norms of the two
        embeddings from the centre, and the distance, for squares that underflow.
    """
    numbers = torch.finfo(dtype)
    terms = _terms(channels, numbers, is_native)
    return _UNIT * numbers.eps * ((terms + 2) / math.sqrt(NEAR) + parts + 4), _least(channels, numbers)


def difference_bound(parts: int, channels: int, dtype: torch.dtype) -> tuple[float, float]:
    """Find how far a Euclidean distance that is computed from differences may be off.

    A difference is off by at most u times itself, so its square by 2 u, and by u more for the product; a sum over C
    channels in any order adds at most C u. The root halves all this and adds u, the mean over P parts at most
    (P + 1) u.

    Args:
        parts: Parts of an embedding.
        channels: Channels of a part.
        dtype: The type that is computed in.

    Returns:
        A share and a distance: the bound is the share of the distance itself, and the distance, for squares that
        underflow.
    """
    numbers = torch.finfo(dtype)
    return _UNIT * numbers.eps * (channels / 2 + parts + 4), _least(channels, numbers)


def _terms(channels: int, numbers: torch.finfo, is_native: bool) -> float:
    """The most roundings on the way of any term of a sum over the channels, by the product form."""
    return 72 + channels * numbers.bits / 512 if is_native else channels + 8


def _least(channels: int, numbers: torch.finfo) -> float:
    return 2 * math.sqrt(4 * channels * numbers.tiny)


def block_size(k: int, parts: int, channels: int, itemsize: int) -> int:
    """Find how many probes fit into a block.

    Args:
        k: Columns of the block.
        parts: Parts of an embedding.
        channels: Channels of a part.
        itemsize: Bytes of a value.

    Returns:
        A number of probes, 1 or more: the block, and the probes in the kernel's layout, take `BLOCK_BYTES`.
    """
    fitting = max(1, BLOCK_BYTES // ((k + parts * channels) * itemsize))
    return fitting if fitting < _PROBES else fitting // _PROBES * _PROBES


def _tensors(probe: NDArray[Any], gallery: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Two arrays as tensors of one type: float64 if one of them is, else float32; without a copy where possible."""
    wide = np.result_type(probe, gallery, np.float32) == np.float64
    kind = np.float64 if wide else np.float32
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing is written
        arrays = (np.ascontiguousarray(array, dtype=kind) for array in (probe, gallery))
        first, second = (torch.from_numpy(array) for array in arrays)
    return first, second
