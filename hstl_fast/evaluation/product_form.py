"""Distances in plain torch, on any device: the product form in blocks, near pairs from differences."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

# Share of |a|^2 + |b|^2 up to which a squared distance is computed from differences, as in csrc/cpu/distances.cpp.
NEAR = 1 / 16
# Values in the largest temporary tensor.
_BLOCK = 1 << 23


def part_distances(
    probe: Tensor, gallery: Tensor, order: Tensor, centre: Tensor | None, cosine: bool, out: Tensor
) -> None:
    """Write the distances of every probe to the rows `order` of the gallery.

    Args:
        probe: Embeddings `[n, P, C]` float32 or float64.
        gallery: Embeddings `[any, P, C]` of the same type, on the same device.
        order: Rows of the gallery, int64 `[k]`.
        centre: A point `[P, C]` amid the embeddings, or None for zeros.
        cosine: Whether to find cosine distances, which know no centre.
        out: The distances `[n, k]` of the same type.
    """
    columns = max(1, _BLOCK // max(1, gallery[0].numel()))
    for first in range(0, len(order), columns):
        some = gallery[order[first : first + columns]]
        rows = max(1, _BLOCK // len(some))
        for start in range(0, len(probe), rows):
            with torch.autocast(probe.device.type, enabled=False):
                block = _block(probe[start : start + rows], some, centre, cosine)
            out[start : start + rows, first : first + columns] = block


def difference_distances(probe: Tensor, gallery: Tensor, out: Tensor) -> None:
    """Write the Euclidean distances of few probes to all of a gallery, from differences alone.

    Args:
        probe: Embeddings `[n, P, C]` float32 or float64.
        gallery: Embeddings `[k, P, C]` of the same type, on the same device.
        out: The distances `[n, k]` of the same type; NaN or infinite where an embedding is not finite or squares
            overflow.
    """
    at_once = max(1, _BLOCK // max(1, gallery[:1].numel()))
    for some, into in zip(gallery.split(at_once), out.split(at_once, dim=1), strict=True):
        for i, one in enumerate(probe):
            into[i] = (some - one).square_().sum(2).sqrt_().mean(1)


def pair_distances(probe: Tensor, gallery: Tensor, probe_rows: Tensor, gallery_rows: Tensor, cosine: bool) -> Tensor:
    """Compute the distances of some pairs in float64.

    Args:
        probe: Embeddings `[any, P, C]`.
        gallery: Embeddings `[any, P, C]`.
        probe_rows: A row of `probe` for each pair, int64 `[pairs]`.
        gallery_rows: A row of `gallery` for each pair, int64 `[pairs]`.
        cosine: Whether to find cosine distances.

    Returns:
        Distances float64 `[pairs]`.
    """
    at_once = max(1, _BLOCK // max(1, gallery[0].numel()))
    pieces = [probe.new_empty(0, dtype=torch.float64)]
    for rows, others in zip(probe_rows.split(at_once), gallery_rows.split(at_once), strict=True):
        a, b = probe[rows].double(), gallery[others].double()
        if cosine:
            pieces.append(1 - (normalize(a, dim=2) * normalize(b, dim=2)).sum(2).mean(1))
        else:
            pieces.append((a - b).square().sum(2).sqrt().mean(1))
    return torch.cat(pieces)


def _block(probe: Tensor, gallery: Tensor, centre: Tensor | None, cosine: bool) -> Tensor:
    parts = probe.shape[1]
    total = probe.new_zeros(len(probe), len(gallery))
    for part in range(parts):
        a, b = probe[:, part], gallery[:, part]
        if cosine:
            total += normalize(a, dim=1) @ normalize(b, dim=1).T
        else:
            total += _euclidean(a, b, 0 if centre is None else centre[part])
    total /= parts
    return 1 - total if cosine else total


def _euclidean(a: Tensor, b: Tensor, centre: Tensor | int) -> Tensor:
    """Distances `[n, k]` of the vectors `a` `[n, C]` to the vectors `b` `[k, C]`."""
    x, y = a - centre, b - centre
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    square = norms - 2 * (x @ y.T)
    near = (square > NEAR * norms).logical_not_()
    distances = square.clamp_(min=0).sqrt_()
    rows, columns = near.nonzero(as_tuple=True)
    at_once = max(1, _BLOCK // a.shape[1])
    for i, j in zip(rows.split(at_once), columns.split(at_once), strict=True):
        distances[i, j] = (a[i] - b[j]).square().sum(1).sqrt()
    return distances
