"""Distances of embeddings on the native CPU backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hstl_fast.backends.cpu.calls import Memory, NativeCall, NativeCallWithWorkspace


@dataclass(slots=True, eq=False)
class WorkspaceCall(NativeCall):
    """Bytes that `PartDistancesCall` may use."""

    name: ClassVar[str] = "part_distances_workspace"
    n: int
    parts: int
    c: int
    itemsize: int
    threads: int


@dataclass(slots=True, eq=False)
class PartDistancesCall(NativeCallWithWorkspace):
    """Distances `[n, k]` of `probe` `[n, parts, c]` to the rows `order` `[k]` of `gallery`."""

    name: ClassVar[str] = "part_distances"
    distances: Tensor
    probe: Tensor
    gallery: Tensor
    order: Tensor
    centre: Tensor | None
    workspace: Memory | None
    n: int
    k: int
    parts: int
    c: int
    cosine: bool
    itemsize: int
    threads: int

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        return int(WorkspaceCall(self.n, self.parts, self.c, self.itemsize, self.threads)())


@dataclass(slots=True, eq=False)
class DifferenceDistancesCall(NativeCall):
    """Distances `[n, k]` of `probe` `[n, parts, c]` to `gallery` `[k, parts, c]` from differences."""

    name: ClassVar[str] = "difference_distances"
    distances: Tensor
    probe: Tensor
    gallery: Tensor
    n: int
    k: int
    parts: int
    c: int
    itemsize: int
    threads: int


@dataclass(slots=True, eq=False)
class PairDistancesCall(NativeCall):
    """Distances float64 `[pairs]` of rows of `probe` to rows of `gallery`."""

    name: ClassVar[str] = "pair_distances"
    distances: Tensor
    probe: Tensor
    gallery: Tensor
    probe_rows: Tensor
    gallery_rows: Tensor
    pairs: int
    parts: int
    c: int
    cosine: bool
    itemsize: int
    threads: int


def part_distances(
    probe: Tensor, gallery: Tensor, order: Tensor, centre: Tensor | None, cosine: bool, out: Tensor
) -> None:
    """Write the distances of every probe to the rows `order` of the gallery.

    Args:
        probe: Embeddings `[n, P, C]` float32 or float64, contiguous, on the CPU.
        gallery: Embeddings `[any, P, C]` of the same type, contiguous.
        order: Rows of the gallery, int64 `[k]`.
        centre: A point `[P, C]` amid the embeddings, or None for zeros.
        cosine: Whether to find cosine distances, which know no centre.
        out: The distances `[n, k]` of the same type, contiguous.
    """
    (n, parts, c), k, threads = probe.shape, len(order), torch.get_num_threads()
    itemsize = probe.dtype.itemsize
    PartDistancesCall(out, probe, gallery, order, centre, None, n, k, parts, c, cosine, itemsize, threads).run()


def difference_distances(probe: Tensor, gallery: Tensor, out: Tensor) -> None:
    """Write the Euclidean distances of few probes to all of a gallery, from differences alone.

    Args:
        probe: Embeddings `[n, P, C]` float32 or float64, contiguous, on the CPU.
        gallery: Embeddings `[k, P, C]` of the same type, contiguous.
        out: The distances `[n, k]` of the same type, contiguous; NaN or infinite where an embedding is not finite or
            squares overflow.
    """
    (n, parts, c), k = probe.shape, len(gallery)
    last = (n, k, parts, c, probe.dtype.itemsize, torch.get_num_threads())
    DifferenceDistancesCall(out, probe, gallery, *last)()


def pair_distances(probe: Tensor, gallery: Tensor, probe_rows: Tensor, gallery_rows: Tensor, cosine: bool) -> Tensor:
    """Compute the distances of some pairs in float64.

    Args:
        probe: Embeddings `[any, P, C]` float32 or float64, contiguous, on the CPU.
        gallery: Embeddings `[any, P, C]` of the same type, contiguous.
        probe_rows: A row of `probe` for each pair, int64 `[pairs]`.
        gallery_rows: A row of `gallery` for each pair, int64 `[pairs]`.
        cosine: Whether to find cosine distances.

    Returns:
        Distances float64 `[pairs]`.
    """
    distances = torch.empty(len(probe_rows), dtype=torch.float64)
    pairs, (_, parts, c) = len(probe_rows), probe.shape
    last = (pairs, parts, c, cosine, probe.dtype.itemsize, torch.get_num_threads())
    PairDistancesCall(distances, probe, gallery, probe_rows, gallery_rows, *last)()
    return distances
