"""The two losses that HSTL is trained with, in plain torch; training minimises their unweighted sum."""

import torch
import torch.nn.functional as F
from torch import Tensor


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Compute the batch-all triplet loss.

    For every part, this is the mean of the terms `max(0, d(anchor, positive) - d(anchor, negative) + margin)` that are
    not zero (0 if all are), over all anchors, all positives (the anchor itself among them) and all negatives; then the
    mean over parts is taken. `d` is the Euclidean distance. Identities may have unequal numbers of sequences.

    Args:
        embeddings: `[N, P, C]`.
        labels: Integers `[N]`.
        margin: How much farther than a positive a negative is to be.

    Returns:
        A scalar, computed in float32 at least.

    Raises:
        ValueError: The embeddings or the labels have another shape, or the labels are no integers.
    """
    if embeddings.dim() != 3:
        raise ValueError(f"embeddings must be [N, P, C], got {list(embeddings.shape)}")
    _check_labels(labels, embeddings.shape[0])
    distance = _distances(_wide(embeddings).transpose(0, 1))  # p n n
    same = labels[:, None] == labels[None, :]
    terms = (distance[:, :, :, None] - distance[:, :, None, :] + margin).relu()  # p anchor positive negative
    terms = terms * (same[:, :, None] & ~same[:, None, :])
    counts = (terms > 0).sum((1, 2, 3))
    return (terms.sum((1, 2, 3)) / counts.clamp(min=1)).mean()


def cross_entropy(logits: Tensor, labels: Tensor, scale: float = 1.0, smoothing: float = 0.0) -> Tensor:
    """Compute the cross entropy of `scale * logits`, averaged over sequences and parts.

    Args:
        logits: `[N, P, K]`.
        labels: Integers `[N]` in 0..K-1.
        scale: A factor of the logits.
        smoothing: Label smoothing e, with which the loss is `e * mean over classes of (-log p) + (1 - e) * CE`.

    Returns:
        A scalar, computed in float32 at least.

    Raises:
        ValueError: The logits or the labels have another shape, or the labels are no integers in 0..K-1 (their range
            is checked on the CPU only).
    """
    if logits.dim() != 3:
        raise ValueError(f"logits must be [N, P, K], got {list(logits.shape)}")
    n, parts, k = logits.shape
    _check_labels(labels, n)
    if labels.device.type == "cpu" and not torch.compiler.is_compiling() and not ((labels >= 0) & (labels < k)).all():
        raise ValueError(f"labels must lie in 0..{k - 1}, got {labels.min()}..{labels.max()}")
    targets = labels.long()[:, None].expand(n, parts).flatten()
    return F.cross_entropy((_wide(logits) * scale).reshape(n * parts, k), targets, label_smoothing=smoothing)


def _distances(x: Tensor) -> Tensor:
    """Return Euclidean distances `[P, N, N]` of `x` `[P, N, C]`; a distance of exactly zero has gradient 0, not NaN.

    The distance of a sequence to itself is set to 0, for the root and its gradient would magnify its rounding error.
    """
    norms = x.square().sum(-1)
    with torch.autocast(x.device.type, enabled=False):
        squared = (norms[:, :, None] + norms[:, None, :] - 2 * x @ x.transpose(1, 2)).relu()
    apart = (squared > 0) & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return torch.where(apart, squared, 1.0).sqrt() * apart


def _check_labels(labels: Tensor, n: int) -> None:
    if labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(f"labels must be {n} integers, one per sequence, got {labels.dtype} {list(labels.shape)}")


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
