"""The two losses that HSTL is trained with, in plain torch; training minimises their unweighted sum."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hstl_fast.ops import triplet

# The types of embeddings; a position in this list stands for a type in messages between processes.
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Compute the batch-all triplet loss.

    For every part, this is the mean of the terms `max(0, d(anchor, positive) - d(anchor, negative) + margin)` that are
    not zero (0 if all are), over all anchors, all positives (the anchor itself among them) and all negatives; then the
    mean over parts is taken. `d` is the Euclidean distance. Identities may have unequal numbers of sequences; a batch
    of one identity has no negatives, and a loss of 0. `hstl_fast.reference.triplet_loss` is the definition in a few
    lines of plain torch.

    Memory beside the embeddings is that of their gradient and some tensors `[N, N]`, never that of all triplets.

    Distances are computed in float64 (float32 on MPS) as `sqrt(max(0, |x|^2 + |y|^2 - 2xy))`, whatever torch's settings
    for matrix products: loss and gradient are those of the definition in float64, rounded. A squared distance below
    `eps C (|x|^2 + |y|^2)`, which is its rounding error, counts as 0; the gradient of a distance of 0 is 0. An
    embedding that is not finite makes the loss NaN, and the gradients of all embeddings of its part.

    Equal input gives the same bits in every call with the same number of threads on the CPU. Only first derivatives are
    computed. Labels on an accelerator are waited for; labels on the CPU beside embeddings on an accelerator are not.

    Args:
        embeddings: `[N, P, C]`.
        labels: Integers `[N]`.
        margin: How much farther than a positive a negative is to be.

    Returns:
        A scalar, float32, or float64 for float64 embeddings.

    Raises:
        ValueError: The embeddings or the labels have another shape, or the labels are no integers.
    """
    _check_embeddings(embeddings)
    _check_labels(labels, embeddings.shape[0])
    return triplet.triplet_loss(embeddings, labels, margin)


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


def all_processes(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the embeddings and labels of all processes of torch.distributed, so that a loss sees the global batch.

    Nothing but embeddings, labels and sizes is communicated, and only in forward: every process computes the whole loss
    `L` of the global batch, so that backward takes this process's rows of the gradient of `L`. The gradient of `L` with
    respect to a parameter is then the sum of what the processes compute. DistributedDataParallel takes the mean
    instead, so that a loss of gathered embeddings has to be multiplied by the number of processes; a loss that is the
    mean over each process's own sequences has not, where all processes have equally many. For example:

        loss = dist.get_world_size() * triplet_loss(*all_processes(embeddings, labels)) + cross_entropy(logits, labels)

    Every process of the default group must call it at the same time; the processes may hold unequal numbers of
    sequences. Any backend of torch.distributed will do. It synchronises an accelerator with the host once.

    Args:
        embeddings: `[n, P, C]` of this process, floating.
        labels: Integers `[n]`.

    Returns:
        `[N, P, C]` and the labels, int64 `[N]`, both in the order of ranks and on the device of the embeddings; the
        arguments themselves where torch.distributed is not initialised.

    Raises:
        ValueError: The embeddings or the labels have another shape or type, or `P`, `C` or the type are not the same
            in all processes.
    """
    _check_embeddings(embeddings)
    _check_labels(labels, embeddings.shape[0])
    if not (dist.is_available() and dist.is_initialized()):
        return embeddings, labels
    if embeddings.dtype not in _TYPES:
        raise ValueError(f"embeddings must be floating, got {embeddings.dtype}")
    counts = _counts_of_processes(embeddings)
    gathered: Tensor = _Gather.apply(embeddings, counts)
    return gathered, _gather(labels.to(embeddings.device, torch.int64), counts)


class _Gather(torch.autograd.Function):
    """Concatenates the rows of all processes; the gradient of a row goes to the process that the row comes from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        start = sum(counts[: dist.get_rank()])
        ctx.own = slice(start, start + len(rows))
        return _gather(rows, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.own].contiguous(), None


def _counts_of_processes(embeddings: Tensor) -> list[int]:
    """Numbers of sequences by rank; the other sizes and the type must agree."""
    mine = [*embeddings.shape, _TYPES.index(embeddings.dtype)]
    sizes = [torch.empty(4, dtype=torch.int64, device=embeddings.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(mine, device=embeddings.device))
    found: list[list[int]] = torch.stack(sizes).tolist()
    for rank, (_, parts, channels, dtype) in enumerate(found):
        if [parts, channels, dtype] != found[0][1:]:
            _, other_parts, other_channels, other_dtype = found[0]
            raise ValueError(
                "embeddings must have the same parts, channels and type in all processes, "
                f"got [n, {other_parts}, {other_channels}] {_TYPES[other_dtype]} of process 0 "
                f"and [n, {parts}, {channels}] {_TYPES[dtype]} of process {rank}"
            )
    return [n for n, *_ in found]


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    """Concatenate the rows of all processes; collectives need equal sizes, so that fewer rows are padded."""
    most = max(counts)
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])]).contiguous()
    gathered = rows.new_empty(len(counts), *padded.shape)
    dist.all_gather(list(gathered.unbind()), padded)
    return torch.cat([found[:n] for found, n in zip(gathered, counts)])


def _check_embeddings(embeddings: Tensor) -> None:
    if embeddings.dim() != 3:
        raise ValueError(f"embeddings must be [N, P, C], got {list(embeddings.shape)}")


def _check_labels(labels: Tensor, n: int) -> None:
    if labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(f"labels must be {n} integers, one per sequence, got {labels.dtype} {list(labels.shape)}")


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
