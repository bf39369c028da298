"""HSTL's operators in plain torch: the definition that every backend is measured against.

A feature map `x` is `[N, C, T, H, W]`. With `seq_lens`, `N` is 1 and sequences of these lengths stand one after another
along `T`; each gets exactly what it would get alone. `split` lists the rows of each region and sums to `H`.
`support`, bool `[N, T, H, W]`, is True where `x` may be non-zero: positions outside it count as 0, without gradient.
Arguments are not checked here: `hstl_fast.functional` holds the same functions with every check.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Lower clamp of the generalised mean.
SMALLEST = 1e-6


def arme(
    x: Tensor,
    weights: Tensor | Sequence[Tensor],
    split: Sequence[int],
    *,
    negative_slope: float | None = 0.01,
    seq_lens: Sequence[int] | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """Convolve every region with its own 3x3x3 weights, with zeros around the region, then apply LeakyReLU.

    Args:
        x: Feature map `[N, C_in, T, H, W]`.
        weights: `[m, C_out, C_in, 3, 3, 3]` or a list of `m` tensors `[C_out, C_in, 3, 3, 3]`.
        split: Rows of each of the `m` regions.
        negative_slope: Slope of LeakyReLU; None for no activation.
        seq_lens: Lengths of the sequences packed along `T`; None where they are not packed.
        support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero.

    Returns:
        Feature map `[N, C_out, T, H, W]`; with `support`, exact zeros outside the support grown by one position.
    """
    sequences = _sequences(_inside(x, support), seq_lens)
    y = torch.cat(
        [
            torch.cat(
                [F.conv3d(rows, weight, padding=1) for rows, weight in zip(_regions(s, split), weights, strict=True)], 3
            )
            for s in sequences
        ],
        2,
    )
    if negative_slope is not None:
        y = F.leaky_relu(y, negative_slope)
    return y if support is None else _inside(y, grow_support(support, split, seq_lens))


def grow_support(support: Tensor, split: Sequence[int], seq_lens: Sequence[int] | None = None) -> Tensor:
    """Find the support of `arme`'s output: one position more in t, h and w, never across a region or a sequence.

    Args:
        support: Support of the input, bool `[N, T, H, W]`.
        split: Rows of each of the `m` regions.
        seq_lens: Lengths of the sequences packed along `T`; None where they are not packed.

    Returns:
        Support of the output, bool `[N, T, H, W]`.
    """
    maps = _sequences(support[:, None].float(), seq_lens)
    grown = [torch.cat([F.max_pool3d(rows, 3, 1, 1) for rows in _regions(s, split)], 3) for s in maps]
    return torch.cat(grown, 2)[:, 0] > 0


def frame_maximum(x: Tensor, seq_lens: Sequence[int] | None = None) -> Tensor:
    """Take the maximum over the frames of each sequence; the first maximum takes the gradient.

    Args:
        x: Feature map `[N, C, T, H, W]`.
        seq_lens: Lengths of the sequences packed along `T`; None where they are not packed.

    Returns:
        Maxima `[N, C, H, W]`; packed sequences become the entries of the batch.
    """
    return torch.cat([s.max(2).values for s in _sequences(x, seq_lens)], 0)


def generalised_mean(x: Tensor, p: Tensor) -> Tensor:
    """Compute `mean(max(x, 1e-6) ^ p) ^ (1 / p)` over the last dimension, in float32 at least.

    The result does not depend on the scale that is divided out, so the maximum needs no gradient of its own, and the
    largest power is always 1: nothing that matters underflows.

    Args:
        x: Values `[..., positions]`.
        p: The exponent, `[1]` or a scalar.

    Returns:
        Means `[...]`.
    """
    x = _wide(x).clamp(min=SMALLEST)
    p = p.to(x.dtype)
    scale = x.detach().amax(-1, keepdim=True)
    return (x / scale).pow(p).mean(-1).pow(1 / p) * scale.squeeze(-1)


def astp(
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    split: Sequence[int],
    *,
    seq_lens: Sequence[int] | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """Take the frame maximum, project it, and take the generalised mean of each region.

    Args:
        x: Feature map `[N, C_in, T, H, W]`.
        proj: Weights `[C_out, C_in]` of a 1x1 convolution; None leaves it out.
        p: Exponents `[m]`.
        split: Rows of each of the `m` regions.
        seq_lens: Lengths of the sequences packed along `T`; None where they are not packed.
        support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero.

    Returns:
        Parts `[N, C_out, m]`, float32 for anything narrower than float64.
    """
    maximum = _wide(frame_maximum(_inside(x, support), seq_lens))
    if proj is not None:
        maximum = F.conv2d(maximum, proj.to(maximum.dtype)[:, :, None, None])
    regions = maximum.split(list(split), 2)
    return torch.stack([generalised_mean(rows.flatten(2), p_r) for rows, p_r in zip(regions, p, strict=True)], 2)


def strip_pool(
    x: Tensor,
    p: Tensor,
    bins: int,
    *,
    seq_lens: Sequence[int] | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """Take the frame maximum, then the generalised mean of equal strips of rows.

    Args:
        x: Feature map `[N, C, T, H, W]`.
        p: The exponent `[1]` of all strips.
        bins: Number of strips; it divides `H`.
        seq_lens: Lengths of the sequences packed along `T`; None where they are not packed.
        support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero.

    Returns:
        Parts `[N, C, bins]`, float32 for anything narrower than float64.
    """
    maximum = frame_maximum(_inside(x, support), seq_lens)
    return generalised_mean(maximum.unflatten(2, (bins, -1)).flatten(3), p)


def fta(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    split: Sequence[int],
    *,
    seq_lens: Sequence[int] | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """Mix frame maxima over windows of 3 and of 5, stride 3, per region, channel and window by a learned gate.

    Args:
        x: Feature map `[N, C, T, H, W]`; a sequence needs 3 frames.
        weights: `[m, 2, C, C]`; with `biases`, they map the region's mean of both maxima's sum to two logits.
        biases: `[m, 2, C]`.
        split: Rows of each of the `m` regions.
        seq_lens: Lengths of the sequences packed along `T`; None where they are not packed.
        support: None, or bool `[N, T, H, W]`, True where `x` may be non-zero.

    Returns:
        Feature map `[N, C, T', H, W]`, `T' = T // 3` for every sequence.
    """
    sequences = _sequences(_inside(x, support), seq_lens)
    narrow = torch.cat([F.max_pool3d(s, (3, 1, 1), (3, 1, 1)) for s in sequences], 2)
    broad = torch.cat([F.max_pool3d(s, (5, 1, 1), (3, 1, 1), (1, 0, 0)) for s in sequences], 2)
    regions = zip(_regions(narrow, split), _regions(broad, split), weights, biases, strict=True)
    return torch.cat([_gated(a, b, weight, bias) for a, b, weight, bias in regions], 3)


def fta_lengths(seq_lens: Sequence[int]) -> list[int]:
    """Count the frames that `fta` leaves of sequences: `(T - 3) // 3 + 1`.

    Args:
        seq_lens: The sequences' lengths.

    Returns:
        As many lengths.
    """
    return [(t - 3) // 3 + 1 for t in seq_lens]


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Compute the batch-all triplet loss from a tensor of all triplets `[P, N, N, N]`.

    Args:
        embeddings: `[N, P, C]`.
        labels: Integers `[N]`.
        margin: How much farther than a positive a negative is to be.

    Returns:
        A scalar, float32 for anything narrower than float64.
    """
    distance = _distances(_wide(embeddings).transpose(0, 1))  # p n n
    same = labels[:, None] == labels[None, :]
    terms = (distance[:, :, :, None] - distance[:, :, None, :] + margin).relu()  # p anchor positive negative
    terms = terms * (same[:, :, None] & ~same[:, None, :])
    counts = (terms > 0).sum((1, 2, 3))
    return (terms.sum((1, 2, 3)) / counts.clamp(min=1)).mean()


def _distances(x: Tensor) -> Tensor:
    """Euclidean distances `[P, N, N]` of `x` `[P, N, C]`; a distance of exactly zero has gradient 0, not NaN.

    The distance of a sequence to itself is set to 0, for the root and its gradient would magnify its rounding error.
    """
    norms = x.square().sum(-1)
    with torch.autocast(x.device.type, enabled=False):
        squared = (norms[:, :, None] + norms[:, None, :] - 2 * x @ x.transpose(1, 2)).relu()
    alike = (squared == 0) | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return squared.masked_fill(alike, 1.0).sqrt().masked_fill(alike, 0.0)


def _gated(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    wide_a, wide_b = _wide(a), _wide(b)
    z = (wide_a + wide_b).mean((3, 4))  # n c t
    maps = zip(weight.to(z.dtype), bias.to(z.dtype), strict=True)
    logits = torch.stack([torch.bmm(w.expand(z.shape[0], -1, -1), z) + b[:, None] for w, b in maps])  # 2 n c t
    share = logits.softmax(0)[..., None, None].to(wide_a.dtype)
    return (share[0] * wide_a + share[1] * wide_b).to(a.dtype)


def _sequences(x: Tensor, seq_lens: Sequence[int] | None) -> Sequence[Tensor]:
    return (x,) if seq_lens is None else torch.split(x, list(seq_lens), 2)


def _regions(x: Tensor, split: Sequence[int]) -> Sequence[Tensor]:
    return torch.split(x, list(split), 3)


def _inside(x: Tensor, support: Tensor | None) -> Tensor:
    return x if support is None else x.where(support[:, None], 0)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
